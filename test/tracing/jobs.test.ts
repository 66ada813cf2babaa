import { randomUUID } from 'node:crypto';

import { createIORedisClient, Queue, Worker } from 'bullmq';
import { Redis } from 'ioredis';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { inJobSpan, inQueueingSpan } from '../../src/platform/tracing/job-spans.js';
import { inSpan, SpanKind } from '../../src/tracing/spans.js';
import { startTracing, type Tracing } from '../../src/tracing/start-tracing.js';
import { OwnRedis, REDIS_PASSWORD, redisMissing } from '../harness/own-redis.js';
import { Collector } from './collector.js';

const QUEUE = 'letters';
const missing = redisMissing();

describe.skipIf(missing !== undefined)('a job that a request queues', () => {
  let collector: Collector;
  let redis: OwnRedis;
  let tracing: Tracing | undefined;
  let queue: Queue;
  let worker: Worker;
  let runs = 0;

  beforeAll(async () => {
    collector = await Collector.start();
    redis = await OwnRedis.start();
    // the SDK reads the process's own
    Object.assign(process.env, collector.env);
    tracing = await startTracing(process.env, { name: 'test', version: '1', instanceId: randomUUID() });
    const connection = () =>
      createIORedisClient(
        new Redis({ host: '127.0.0.1', port: redis.port, password: REDIS_PASSWORD, maxRetriesPerRequest: null }),
      );
    queue = new Queue(QUEUE, { connection: connection() });
    worker = new Worker(
      QUEUE,
      (job) =>
        inJobSpan(job, async () => {
          runs++;
          if (job.name === 'fails-once' && job.attemptsMade === 0) throw new TypeError('with what somebody wrote');
        }),
      { connection: connection() },
    );
  });
  afterAll(async () => {
    await worker?.close();
    await queue?.close();
    await tracing?.stop();
    await redis?.stop();
    collector?.stop();
  });

  function request(task: string, attempts: number): Promise<void> {
    const description = { name: 'POST /letters', kind: SpanKind.SERVER, attributes: {} };
    return inSpan(description, async () => {
      await inQueueingSpan(QUEUE, task, (carried) =>
        queue.add(task, { to: 'somebody' }, { ...carried, attempts, backoff: { type: 'fixed', delay: 10 } }),
      );
    });
  }

  test('is one trace with it', async () => {
    await request('goes', 1);
    const root = await collector.span('the request', ({ name }) => name === 'POST /letters');
    const spans = await collector.trace(root.traceId, 'send letters', 'process letters');
    const [send] = spans.filter(({ name }) => name === 'send letters');
    const [run] = spans.filter(({ name }) => name === 'process letters');
    expect(send).toMatchObject({ parentSpanId: root.spanId, kind: 4, attributes: { 'bore.task': 'goes' } });
    expect(run).toMatchObject({
      parentSpanId: send?.spanId,
      kind: 5,
      attributes: { 'messaging.destination.name': QUEUE, 'messaging.message.id': expect.any(String) },
    });
  });

  test('its repeated attempts too; a failure is told by the name of the error alone', async () => {
    const before = runs;
    await request('fails-once', 2);
    const failed = await collector.span('the failure', ({ attributes }) => attributes['error.type'] === 'TypeError');
    const again = await collector.span(
      'the second attempt',
      ({ traceId, name, attributes }) =>
        traceId === failed.traceId && name === 'process letters' && attributes['error.type'] === undefined,
    );
    expect(failed.status).toMatchObject({ code: 2 });
    expect(again.parentSpanId).toBe(failed.parentSpanId);
    expect(runs - before).toBe(2);
    expect(collector.bodies.join('')).not.toContain('somebody');
  });

  test('the worker keeps no trace open: what comes from elsewhere is a trace of its own', async () => {
    await queue.add('alone', {});
    const run = await collector.span('the job', ({ attributes }) => attributes['bore.task'] === 'alone');
    expect(run.parentSpanId ?? '').toBe('');
    expect(collector.spans.filter(({ traceId }) => traceId === run.traceId)).toHaveLength(1);
  });
});
