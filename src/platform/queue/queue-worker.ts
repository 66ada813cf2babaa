import { OnWorkerEvent, WorkerHost } from '@nestjs/bullmq';
import type { BeforeApplicationShutdown, OnApplicationBootstrap, OnApplicationShutdown } from '@nestjs/common';
import type { Job, Queue } from 'bullmq';
import type { Logger } from 'pino';

import { inJobSpan } from '../tracing/job-spans.js';
import { runAsJob } from './job-context.js';
import type { QueueClients } from './queue-clients.js';
import { QueueTrouble } from './queue-trouble.js';
import type { QueueWatch } from './queue-watch.js';
import { type Schedule, Schedules } from './schedules.js';

/**
 * A job of a killed backend is taken over after this time, and that of one that has not had the CPU for so long. Longer
 * than any statement may take, and than a garbage collection.
 */
const LOCK_MS = 15_000;
/** How often a worker looks for jobs whose backend is gone. */
const STALLED_INTERVAL_MS = 5_000;
/**
 * Until a worker asks its queue again when that has failed; BullMQ's 15 s would come on top of those that a command takes to
 * fail which went astray in a fail-over.
 */
const RETRY_MS = 1_000;

/** For `@Processor` of every queue. */
export const WORKER_OPTIONS = {
  lockDuration: LOCK_MS,
  stalledInterval: STALLED_INTERVAL_MS,
  runRetryDelay: RETRY_MS,
};

/** What a worker works with. */
export interface QueueTools {
  readonly queue: Queue;
  readonly logger: Logger;
  readonly clients: QueueClients;
  readonly watch: QueueWatch;
}

/**
 * Does a queue's jobs, and keeps its schedules in it: each run is logged, traced, counted and told of when it fails. A queue that
 * is away holds up neither the start nor the end of a backend.
 */
export abstract class QueueWorker<Task extends string>
  extends WorkerHost
  implements OnApplicationBootstrap, BeforeApplicationShutdown, OnApplicationShutdown
{
  private readonly trouble: QueueTrouble;
  private readonly schedules: Schedules;
  private closed: Promise<void> | undefined;

  /** @param taskNames what jobs of this queue are named by */
  constructor(
    private readonly tools: QueueTools,
    private readonly taskNames: readonly Task[],
    schedules: readonly (Schedule & { readonly task: Task })[],
  ) {
    super();
    const { queue, logger, watch } = tools;
    this.trouble = new QueueTrouble(logger);
    queue.on('error', (err) => this.onQueueError(err));
    watch.add(queue, taskNames);
    this.schedules = new Schedules(queue, schedules, (err) => this.onQueueError(err));
  }

  onApplicationBootstrap(): void {
    this.schedules.start();
  }

  async beforeApplicationShutdown(): Promise<void> {
    this.schedules.stop();
    await this.endWork();
    // on Redis a job at work is left to another backend, as that of one that was killed; on PostgreSQL it ends, as its statements do
    this.closed = this.worker.close(this.tools.clients.inUse);
    if (this.tools.clients.inUse) await this.closed;
  }

  /** Before Nest closes the queue, which this module depends on: what a job asks of a closed one is never answered. */
  async onApplicationShutdown(): Promise<void> {
    await this.closed;
  }

  async process(job: Job): Promise<void> {
    const { logger, watch } = this.tools;
    await runAsJob(job, () =>
      inJobSpan(job, async () => {
        const began = performance.now();
        const task = this.taskNames.find((name) => name === job.name);
        if (task === undefined) {
          // during an update: a backend of the other release knows it, and it comes again
          logger.debug(`job of another release: ${job.name}`);
          return;
        }
        await watch.run(task, () => this.perform(task, job.data));
        logger.debug({ durationMs: Math.round(performance.now() - began) }, 'job done');
      }),
    );
  }

  /** Does one job. */
  protected abstract perform(task: Task, data: unknown): Promise<void>;

  /** Ends what goes on outside of jobs, before the queue is let go. */
  protected endWork(): Promise<void> {
    return Promise.resolve();
  }

  @OnWorkerEvent('failed')
  onFailed(job: Job | undefined, err: Error): void {
    this.trouble.notice('error', `job failed: ${job?.name}`, err, { jobId: job?.id, task: job?.name });
  }

  @OnWorkerEvent('error')
  onError(err: Error): void {
    this.trouble.notice('warn', 'queue worker failed', err);
  }

  private onQueueError(err: unknown): void {
    this.trouble.notice('warn', 'queue connection failed', err);
  }
}
