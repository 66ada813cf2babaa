import { z } from 'zod';

import { PageQuery } from '../platform/http/page.js';

/** Everything that happens to a tunnel and is told: record_tunnel_event in prisma/migrations. */
export const EventType = z.enum([
  'tunnel.created',
  'tunnel.active',
  'tunnel.offline',
  'tunnel.closed',
  'tunnel.updated',
  'tunnel.relocated',
]);
export type EventType = z.infer<typeof EventType>;

/** What `GET events/status` tells: whether a tunnel is there. */
export const STATUS_TYPES: readonly EventType[] = ['tunnel.active', 'tunnel.offline', 'tunnel.closed'];

/** An event as its owner sees it, the same on every way out. */
export const EventView = z.object({
  id: z.string().describe('A number that grows; later events have higher ones'),
  // not the enum: the database may be of a later release than this process
  type: z.string(),
  at: z.iso.datetime(),
  tunnelId: z.guid().nullable(),
  data: z.record(z.string(), z.unknown()).describe('The tunnel as this change left it'),
});
export type EventView = z.infer<typeof EventView>;

/** Whose events, and which of them. */
export interface EventFilter {
  readonly userId: string;
  /** Empty: of all their tunnels. */
  readonly tunnelIds: ReadonlySet<string>;
  /** Empty: of all types. */
  readonly types: ReadonlySet<string>;
}

/** Whether an event of the filter's user passes it. */
export function passes({ tunnelIds, types }: EventFilter, { tunnelId, type }: EventView): boolean {
  return (
    (tunnelIds.size === 0 || (tunnelId !== null && tunnelIds.has(tunnelId))) && (types.size === 0 || types.has(type))
  );
}

const LastEventId = z.string().max(64).describe('For clients that cannot send the header `Last-Event-ID`');

export const StatusQuery = z.strictObject({
  tunnelId: z.guid().optional().describe('Of this tunnel only'),
  lastEventId: LastEventId.optional(),
});
export type StatusQuery = z.output<typeof StatusQuery>;

export const EventsQuery = StatusQuery.extend({
  types: z
    .string()
    .max(200)
    .transform((text) => text.split(','))
    .pipe(z.array(EventType))
    .optional()
    .describe('Of these types only, comma-separated'),
});
export type EventsQuery = z.output<typeof EventsQuery>;

/** What a socket.io client says when it connects. An access token or API key has far less than 4,096 characters. */
export const SocketAuth = z.strictObject({
  token: z.string().min(1).max(4096),
  lastEventId: z
    .string()
    .max(64)
    .nullish()
    .transform((id) => id ?? undefined),
  tunnelId: z.guid().optional(),
  types: z.array(EventType).max(EventType.options.length).optional(),
});

export const ListEventsQuery = PageQuery;
export type ListEventsQuery = z.output<typeof ListEventsQuery>;

/** An event's id in a cursor. */
export const EventKeyText = z
  .string()
  .regex(/^\d{1,15}$/)
  .transform(Number);
