import { Injectable, type OnModuleInit } from '@nestjs/common';
import { InjectMetric, makeCounterProvider, makeHistogramProvider } from '@willsoto/nestjs-prometheus';
import type { Counter, Histogram } from 'prom-client';

import { QueueWatch } from '../platform/queue/queue-watch.js';
import { scrapeGauge } from './scrape-gauge.js';

const JOBS = 'bore_jobs_total';
const DURATION = 'bore_job_duration_seconds';

/** The queues, which all backends share, and the jobs that this one has done. */
@Injectable()
export class QueueMetrics implements OnModuleInit {
  constructor(
    @InjectMetric(JOBS) private readonly jobs: Counter,
    @InjectMetric(DURATION) duration: Histogram,
    private readonly watch: QueueWatch,
  ) {
    watch.jobs.on('ended', ({ task, outcome, seconds }) => {
      jobs.inc({ task, outcome });
      duration.observe({ task }, seconds);
    });
    scrapeGauge(
      {
        name: 'bore_queue_up',
        help: '1: the queue answered this backend when it was asked last, within 2 s',
        labelNames: ['queue'],
      },
      (gauge) => {
        for (const { queue, seen } of watch.figures()) gauge.set({ queue }, Number(seen !== undefined));
      },
    );
    scrapeGauge(
      {
        name: 'bore_queue_jobs',
        help: 'Jobs of the queue; every backend shows the same',
        labelNames: ['queue', 'state'],
      },
      (gauge) => {
        for (const { queue, seen } of watch.figures())
          for (const [state, count] of seen?.jobs ?? []) gauge.set({ queue, state }, count);
      },
    );
    scrapeGauge(
      {
        name: 'bore_queue_oldest_waiting_seconds',
        help: 'How long the oldest job that waits is past its time; 0: none waits',
        labelNames: ['queue'],
      },
      (gauge) => {
        for (const { queue, seen } of watch.figures()) if (seen) gauge.set({ queue }, seen.oldestWaitingSeconds);
      },
    );
  }

  /** There from the start, or the first one would not show as a change. */
  onModuleInit(): void {
    for (const task of this.watch.tasks)
      for (const outcome of ['completed', 'failed']) this.jobs.inc({ task, outcome }, 0);
  }
}

export const queueMetricProviders = [
  makeCounterProvider({ name: JOBS, help: 'Jobs that this backend has done', labelNames: ['task', 'outcome'] }),
  makeHistogramProvider({
    name: DURATION,
    help: 'How long they took',
    labelNames: ['task'],
    // a statement or two; deletions of many rows take seconds
    buckets: [0.005, 0.025, 0.1, 0.3, 1, 3, 10, 30],
  }),
  QueueMetrics,
];
