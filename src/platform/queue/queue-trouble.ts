import type { Logger } from 'pino';

/** An outage fails every command and every run; one line a minute tells of it. */
const LOG_INTERVAL_MS = 60_000;

/** Tells of failures that repeat, of each kind at most once a minute. Kinds are few and named in code. */
export class QueueTrouble {
  private readonly nextAt = new Map<string, number>();

  constructor(private readonly logger: Logger) {}

  /**
   * Only the message: an error of Redis carries the command, and that may be AUTH.
   * @param job whose run it was
   */
  notice(
    level: 'warn' | 'error',
    kind: string,
    err: unknown,
    job: { readonly jobId?: string | undefined; readonly task?: string | undefined } = {},
  ): void {
    const now = Date.now();
    if (now < (this.nextAt.get(kind) ?? 0)) return;
    this.nextAt.set(kind, now + LOG_INTERVAL_MS);
    this.logger[level]({ ...job, reason: err instanceof Error ? err.message : String(err) }, kind);
  }
}
