import { tracingChannel } from 'node:diagnostics_channel';

import { beginStep, fail, isTracing, type Span, SpanKind } from '../../tracing/spans.js';

/** What ioredis says of a command, on a channel of Node's; the rest of it (arguments) is nobody's business. */
interface CommandMessage {
  readonly command: string;
  readonly serverAddress: string;
  readonly serverPort: number | undefined;
  readonly error?: unknown;
}

/** A span for each command that a request or a job sends to Redis, by its name alone, while tracing is on. */
export function traceRedis(): void {
  if (!isTracing()) return;
  /** Of commands under way: each goes with its message. */
  const spans = new WeakMap<CommandMessage, Span>();
  tracingChannel<unknown, CommandMessage>('ioredis:command').subscribe({
    start: (message) => {
      const span = beginStep(() => describe(message));
      if (span) spans.set(message, span);
    },
    end: () => undefined,
    asyncStart: () => undefined,
    asyncEnd: (message) => spans.get(message)?.end(),
    error: (message) => {
      const span = spans.get(message);
      if (span) fail(span, message.error);
    },
  });
}

function describe({ command, serverAddress, serverPort }: CommandMessage) {
  const operation = command.toUpperCase();
  return {
    name: operation,
    kind: SpanKind.CLIENT,
    attributes: {
      'db.system.name': 'redis',
      'db.operation.name': operation,
      'server.address': serverAddress,
      ...(serverPort !== undefined && { 'server.port': serverPort }),
    },
  };
}
