import { EventEmitter } from 'node:events';

import { type BeforeApplicationShutdown, Injectable, type OnApplicationBootstrap } from '@nestjs/common';
import type { Queue } from 'bullmq';

/** Often enough for a scrape every 15 s; two short commands each time. */
const LOOK_INTERVAL_MS = 5_000;
/** Who answers later does not work. Its answer is waited for all the same: looks never pile up. */
const PATIENCE_MS = 2_000;

/** States that say something: `completed` is what retention leaves. */
const STATES = ['waiting', 'active', 'delayed', 'prioritized', 'failed'] as const;

/** A queue as it was when it was last looked at. */
export interface QueueFigures {
  readonly queue: string;
  /** Jobs by state, and how long the oldest has waited past its time (0: none waits); `undefined`: the queue does not answer. */
  readonly seen: { readonly jobs: ReadonlyMap<string, number>; readonly oldestWaitingSeconds: number } | undefined;
}

/** What a job came to. */
export interface JobEnd {
  readonly task: string;
  readonly outcome: 'completed' | 'failed';
  readonly seconds: number;
}

/** Looks after the queues: how many jobs there are, and how those of this process end. */
@Injectable()
export class QueueWatch implements OnApplicationBootstrap, BeforeApplicationShutdown {
  /** Tells of each job that ended in this process. */
  readonly jobs = new EventEmitter<{ ended: [JobEnd] }>();
  /** What jobs of any queue are named by: few, and named in code. Whole when the modules are there. */
  readonly tasks = new Set<string>();
  private readonly queues = new Map<Queue, QueueFigures['seen']>();
  private readonly looking = new Set<Queue>();
  private timer: NodeJS.Timeout | undefined;

  /** @param tasks that jobs of the queue are named by */
  add(queue: Queue, tasks: readonly string[]): void {
    this.queues.set(queue, undefined);
    for (const task of tasks) this.tasks.add(task);
  }

  /** Does a job's work, and tells of its end. */
  async run<T>(task: string, work: () => Promise<T>): Promise<T> {
    const began = performance.now();
    const ended = (outcome: JobEnd['outcome']): void =>
      void this.jobs.emit('ended', { task, outcome, seconds: (performance.now() - began) / 1000 });
    try {
      const result = await work();
      ended('completed');
      return result;
    } catch (error) {
      ended('failed');
      throw error;
    }
  }

  /** What is known of each queue. Waits for nothing. */
  figures(): QueueFigures[] {
    return [...this.queues].map(([{ name }, seen]) => ({ queue: name, seen }));
  }

  onApplicationBootstrap(): void {
    this.lookAtAll();
    this.timer = setInterval(() => this.lookAtAll(), LOOK_INTERVAL_MS).unref();
  }

  beforeApplicationShutdown(): void {
    clearInterval(this.timer);
  }

  private lookAtAll(): void {
    for (const queue of this.queues.keys()) if (!this.looking.has(queue)) void this.look(queue);
  }

  /** Never fails: a queue that cannot be asked is one of which nothing is known, and its owner tells of it. */
  private async look(queue: Queue): Promise<void> {
    this.looking.add(queue);
    const late = setTimeout(() => this.queues.set(queue, undefined), PATIENCE_MS);
    try {
      const [counts, [oldest]] = await Promise.all([
        queue.getJobCounts(...STATES),
        queue.getJobs(['waiting'], 0, 0, true),
      ]);
      // what a schedule has made waits from the time that it was made for
      const due = oldest && oldest.timestamp + (oldest.opts.delay ?? 0);
      this.queues.set(queue, {
        jobs: new Map(STATES.map((state) => [state, counts[state] ?? 0])),
        oldestWaitingSeconds: due === undefined ? 0 : Math.max(0, (Date.now() - due) / 1000),
      });
    } catch {
      this.queues.set(queue, undefined);
    } finally {
      clearTimeout(late);
      this.looking.delete(queue);
    }
  }
}
