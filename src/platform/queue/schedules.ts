import type { Queue } from 'bullmq';

/** A wiped Redis has them again after this time; asking costs one short command for each. */
const RENEW_INTERVAL_MS = 10_000;

/** Something to be done again and again, once in `everyMs` over all backends. */
export interface Schedule {
  readonly task: string;
  readonly everyMs: number;
}

/**
 * Keeps schedules in a queue. Each backend writes them again from time to time, which changes nothing while they are
 * there: what holds them may be empty when it comes back.
 */
export class Schedules {
  private timer: NodeJS.Timeout | undefined;
  private stopped = false;

  constructor(
    private readonly queue: Queue,
    private readonly schedules: readonly Schedule[],
    private readonly onError: (error: unknown) => void,
  ) {}

  /** Waits for nothing: a backend serves while its queue is away. */
  start(): void {
    void this.renew();
  }

  stop(): void {
    this.stopped = true;
    clearTimeout(this.timer);
  }

  private async renew(): Promise<void> {
    try {
      for (const { task, everyMs } of this.schedules) {
        await this.queue.upsertJobScheduler(task, { every: everyMs }, { name: task });
      }
    } catch (error) {
      if (!this.stopped) this.onError(error);
    }
    if (!this.stopped) this.timer = setTimeout(() => void this.renew(), RENEW_INTERVAL_MS).unref();
  }
}
