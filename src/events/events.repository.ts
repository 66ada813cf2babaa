import { Injectable } from '@nestjs/common';
import { z } from 'zod';

import { Database } from '../platform/database/database.js';
import { Prisma } from '../platform/database/generated/client.js';
import { type EventFilter, EventView } from './event.js';

/** An event with its owner. */
const OwnedEvent = EventView.extend({ userId: z.guid() });
export type OwnedEvent = z.infer<typeof OwnedEvent>;

/** Ids are numbers here: a bigint that will not pass 2^53 in our time. */
const Id = z.coerce.number().int();

const Replay = z.object({
  /** Of the ids that are kept, when the events were read; 1 and 0 while there has been no event. */
  lowest: Id,
  highest: Id,
  events: z.array(EventView),
});
/** Events of one user behind an id, and where the ids of all stand. */
export type Replay = z.infer<typeof Replay>;

const VIEW = Prisma.sql`id::text, type, iso_instant(at) AS at, tunnel_id AS "tunnelId", data`;
/** What is new for all users, and the highest id that there is. */
const News = z.object({ highest: Id, events: z.array(OwnedEvent) });
export type News = z.infer<typeof News>;

/** The newest event is never deleted: this goes back only with the database, to an earlier state. */
const HIGHEST = Prisma.sql`(SELECT coalesce(max(id), 0) FROM events)`;

/** The outbox in the database. Written by triggers alone, in the order of commits (prisma/migrations, events). */
@Injectable()
export class EventsRepository {
  constructor(private readonly database: Database) {}

  /** Events of all users behind an id, lowest first. One statement, so that all of it is of one moment. */
  async after(id: number, limit: number): Promise<News> {
    const [news] = await this.database.rows(
      News,
      Prisma.sql`
        SELECT ${HIGHEST} AS highest, coalesce(jsonb_agg(e ORDER BY e.id::bigint), '[]') AS events FROM (
          SELECT ${VIEW}, user_id AS "userId" FROM events WHERE id > ${id}::bigint ORDER BY events.id LIMIT ${limit}) e`,
    );
    if (!news) throw new Error('an aggregate returned no row');
    return news;
  }

  /** Events of one user behind an id, lowest first. One statement, so that all of it is of one moment. */
  async replay({ userId, tunnelIds, types }: EventFilter, id: number, limit: number): Promise<Replay> {
    const conditions = [
      Prisma.sql`user_id = ${userId}::uuid AND events.id > ${id}::bigint`,
      ...(tunnelIds.size > 0 ? [Prisma.sql`tunnel_id = ANY (${[...tunnelIds]}::uuid[])`] : []),
      ...(types.size > 0 ? [Prisma.sql`type = ANY (${[...types]}::text[])`] : []),
    ];
    const [replay] = await this.database.rows(
      Replay,
      Prisma.sql`
        SELECT (SELECT coalesce(min(id), 1) FROM events) AS lowest, ${HIGHEST} AS highest, coalesce(jsonb_agg(e ORDER BY e.id::bigint), '[]') AS events FROM (
          SELECT ${VIEW} FROM events WHERE ${Prisma.join(conditions, ' AND ')} ORDER BY events.id LIMIT ${limit}) e`,
    );
    if (!replay) throw new Error('an aggregate returned no row');
    return replay;
  }

  /** The id of the newest event of all users; 0 while there has been none. */
  async highest(): Promise<number> {
    const [row] = await this.database.rows(z.object({ highest: Id }), Prisma.sql`SELECT ${HIGHEST} AS highest`);
    return row?.highest ?? 0;
  }

  /** Past events of a user's tunnel, newest first, from below an id. */
  list(tunnelId: string, userId: string, before: number | undefined, limit: number): Promise<EventView[]> {
    return this.database.rows(
      EventView,
      Prisma.sql`
        SELECT ${VIEW} FROM events
        WHERE tunnel_id = ${tunnelId}::uuid AND user_id = ${userId}::uuid
          AND (${before ?? null}::bigint IS NULL OR events.id < ${before ?? null}::bigint)
        ORDER BY events.id DESC LIMIT ${limit}`,
    );
  }

  async isOwner(userId: string, tunnelId: string): Promise<boolean> {
    return (await this.database.tunnel.count({ where: { id: tunnelId, userId } })) > 0;
  }

  /** Deletes events older than `hours`, at most `limit`; returns how many. */
  async forget(hours: number, limit: number): Promise<number> {
    const [forgotten] = await this.database.rows(
      z.object({ count: Id }),
      Prisma.sql`SELECT forget_events(${hours}::int, ${limit}::int) AS count`,
    );
    return forgotten?.count ?? 0;
  }
}
