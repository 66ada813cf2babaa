import type { Job, JobsOptions } from 'bullmq';

import { contextOf, inSpan, SpanKind, traceHeaders } from '../../tracing/spans.js';

/** What a job of BullMQ carries of the trace of whoever queued it. */
type Carried = Pick<JobsOptions, 'telemetry'>;

/**
 * Queues a job in a span of its own; its run goes on with the trace.
 * @param add queues it, with `carried` among its options
 */
export function inQueueingSpan<T>(queue: string, task: string, add: (carried: Carried) => Promise<T>): Promise<T> {
  return inSpan(describe('send', SpanKind.PRODUCER, queue, task), () => {
    const { traceparent } = traceHeaders();
    return add(traceparent === undefined ? {} : { telemetry: { metadata: traceparent } });
  });
}

/** Does a job in a span: below the one that queued it, or, of a schedule, the first of a trace. */
export function inJobSpan<T>(job: Pick<Job, 'id' | 'name' | 'queueName' | 'opts'>, work: () => Promise<T>): Promise<T> {
  const { name, kind, attributes } = describe('process', SpanKind.CONSUMER, job.queueName, job.name);
  return inSpan(
    { name, kind, attributes: { ...attributes, ...(job.id !== undefined && { 'messaging.message.id': job.id }) } },
    work,
    contextOf(job.opts.telemetry?.metadata),
  );
}

function describe(operation: 'send' | 'process', kind: SpanKind, queue: string, task: string) {
  return {
    name: `${operation} ${queue}`,
    kind,
    attributes: {
      'messaging.system': 'bullmq',
      'messaging.destination.name': queue,
      'messaging.operation.name': operation,
      'messaging.operation.type': operation,
      'bore.task': task,
    },
  };
}
