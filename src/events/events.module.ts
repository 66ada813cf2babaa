import { Module } from '@nestjs/common';

import { EventFeed } from './event-feed.js';
import { EventSignal } from './event-signal.js';
import { EventStreams } from './event-streams.js';
import { EventsController } from './events.controller.js';
import { EventsRepository } from './events.repository.js';
import { EventsService } from './events.service.js';
import { SocketIoServer } from './socket-io.server.js';

@Module({
  controllers: [EventsController],
  providers: [EventFeed, EventSignal, EventStreams, EventsRepository, EventsService, SocketIoServer],
  exports: [EventFeed, EventStreams, EventsRepository],
})
export class EventsModule {}
