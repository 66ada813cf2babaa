import { Inject, Injectable } from '@nestjs/common';

import { EventFeed } from '../events/event-feed.js';
import { EventStreams } from '../events/event-streams.js';
import { CONFIG, type Config } from '../platform/config/config.js';
import { scrapeGauge } from './scrape-gauge.js';

/** This backend's event streams. */
@Injectable()
export class EventMetrics {
  constructor(feed: EventFeed, streams: EventStreams, @Inject(CONFIG) config: Config) {
    scrapeGauge(
      {
        name: 'bore_events_lag_seconds',
        help: 'Time since this backend has last read the outbox to its end, while it carries streams: at rest up to 1',
      },
      (gauge) => gauge.set(feed.lagSeconds),
    );
    scrapeGauge(
      { name: 'bore_event_streams', help: 'Event streams (SSE and socket.io) that this backend carries' },
      (gauge) => gauge.set(streams.count),
    );
    scrapeGauge({ name: 'bore_event_streams_max', help: 'How many it carries at most' }, (gauge) =>
      gauge.set(config.EVENT_STREAMS_MAX),
    );
  }
}
