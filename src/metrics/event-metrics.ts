import { Injectable } from '@nestjs/common';
import { InjectMetric, makeGaugeProvider } from '@willsoto/nestjs-prometheus';
import type { Gauge } from 'prom-client';

import { EventFeed } from '../events/event-feed.js';
import { EventStreams } from '../events/event-streams.js';

const LAG = 'bore_events_lag_seconds';
const STREAMS = 'bore_event_streams';

/** Gauges of this backend's event streams, read at scrape time. */
@Injectable()
export class EventMetrics {
  constructor(
    @InjectMetric(LAG) private readonly lag: Gauge,
    @InjectMetric(STREAMS) private readonly streams: Gauge,
    private readonly feed: EventFeed,
    private readonly eventStreams: EventStreams,
  ) {}

  refresh(): void {
    this.lag.set(this.feed.lagSeconds);
    this.streams.set(this.eventStreams.count);
  }
}

export const eventMetricProviders = [
  makeGaugeProvider({
    name: LAG,
    help: 'Time since this backend has last read the outbox to its end, while it carries streams: at rest up to 1',
  }),
  makeGaugeProvider({ name: STREAMS, help: 'Event streams (SSE and socket.io) that this backend carries' }),
  EventMetrics,
];
