import { applyDecorators, Controller, Get, Param, Query, Req, Res } from '@nestjs/common';
import { ApiExtension, ApiHeader, ApiResponse, ApiTags } from '@nestjs/swagger';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { z } from 'zod';

import { Answers, ERROR_CODES_EXTENSION } from '../platform/http/answers.decorator.js';
import { type Page, pageOf } from '../platform/http/page.js';
import { AccountOnly, type Caller, CurrentCaller } from '../platform/http/route-metadata.js';
import { endRequestSpan } from '../platform/tracing/http-spans.js';
import { EventsQuery, EventView, ListEventsQuery, STATUS_TYPES, StatusQuery } from './event.js';
import { EventStreams } from './event-streams.js';
import { EventsService } from './events.service.js';
import { SseOutlet } from './sse-outlet.js';

/** A route that answers with a stream of Server-Sent Events. */
const AnswersWithEvents = () =>
  applyDecorators(
    ApiResponse({
      status: 200,
      description:
        'Server-Sent Events without an end: `event` is the type of the event, `data` the event as JSON. Also `reset`: the last event named is not known any more, read the state anew; `end`: the stream is being closed, `code` says why.',
      content: { 'text/event-stream': { schema: { type: 'string' } } },
    }),
    ApiHeader({ name: 'Last-Event-ID', required: false, description: 'Go on behind this event' }),
    ApiExtension(ERROR_CODES_EXTENSION, ['NOT_FOUND', 'TOO_MANY_STREAMS']),
  );

@ApiTags('events')
@Controller()
export class EventsController {
  constructor(
    private readonly events: EventsService,
    private readonly streams: EventStreams,
  ) {}

  @Get('events')
  @AccountOnly('tunnels:read')
  @AnswersWithEvents()
  stream(
    @CurrentCaller() caller: Caller,
    @Query({ schema: EventsQuery }) query: EventsQuery,
    @Req() request: FastifyRequest,
    @Res() reply: FastifyReply,
  ): Promise<void> {
    return this.begin(caller, query, request, reply);
  }

  @Get('events/status')
  @AccountOnly('tunnels:read')
  @AnswersWithEvents()
  status(
    @CurrentCaller() caller: Caller,
    @Query({ schema: StatusQuery }) query: StatusQuery,
    @Req() request: FastifyRequest,
    @Res() reply: FastifyReply,
  ): Promise<void> {
    return this.begin(caller, { ...query, types: [...STATUS_TYPES] }, request, reply);
  }

  @Get('tunnels/:id/events')
  @AccountOnly('tunnels:read')
  @Answers(200, pageOf(EventView), 'NOT_FOUND')
  list(
    @CurrentCaller() caller: Caller,
    @Param('id', { schema: z.guid() }) id: string,
    @Query({ schema: ListEventsQuery }) query: ListEventsQuery,
  ): Promise<Page<EventView>> {
    return this.events.list(caller, id, query);
  }

  private async begin(caller: Caller, query: EventsQuery, request: FastifyRequest, reply: FastifyReply): Promise<void> {
    const { tunnelId, types = [], lastEventId } = query;
    if (tunnelId !== undefined) await this.events.mustOwn(caller, tunnelId);
    const filter = {
      userId: caller.userId,
      tunnelIds: new Set(tunnelId === undefined ? [] : [tunnelId]),
      types: new Set(types),
    };
    // what Fastify makes of every GET
    if (request.method === 'HEAD') return void reply.type('text/event-stream').send();
    const header = request.headers['last-event-id'];
    await this.streams.begin(caller, filter, typeof header === 'string' ? header : lastEventId, (start) => {
      reply.hijack();
      const outlet = new SseOutlet(reply.raw, reply.getHeaders(), start);
      endRequestSpan(request, 200);
      return outlet;
    });
  }
}
