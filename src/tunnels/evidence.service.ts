import { Readable } from 'node:stream';

import { Injectable } from '@nestjs/common';

import { AuditLogRepository } from '../audit/audit-log.repository.js';
import { noteWrite } from '../platform/http/request-context.js';
import type { Caller } from '../platform/http/route-metadata.js';
import type { EvidenceConnection, EvidenceQuery, EvidenceSession } from './evidence.js';
import { EvidenceRepository } from './evidence.repository.js';

/** A port that more tunnels had in a month is asked for in parts. */
const TUNNELS_MAX = 1_000;
const ACTIONS_MAX = 10_000;
/** Some 25 MB of text: a client that came back every half minute for a month. */
const SESSIONS_MAX = 100_000;
/** Some 60 MB of text. */
const CONNECTIONS_MAX = 200_000;
/** Sessions or connections held in memory: one page. */
const PAGE = 1_000;

/** Exports who had a public port, for who has to answer an enquiry. */
@Injectable()
export class EvidenceService {
  constructor(
    private readonly evidence: EvidenceRepository,
    private readonly audit: AuditLogRepository,
  ) {}

  /** Lines of JSON. That it was asked for is in the audit log before the first. */
  async export(caller: Caller, query: EvidenceQuery): Promise<Readable> {
    const { serverId, port, from, to } = query;
    await this.audit.record({
      action: 'evidence.exported',
      target: { type: 'server', id: serverId },
      details: { port, from, to },
    });
    noteWrite(caller.userId);
    return Readable.from(this.lines(caller, query), { objectMode: false });
  }

  private async *lines(caller: Caller, query: EvidenceQuery): AsyncGenerator<string> {
    yield line('export', { ...query, exportedBy: caller.email, exportedAt: new Date() });
    const tunnels = await this.evidence.tunnels(query, TUNNELS_MAX + 1);
    const shown = tunnels.slice(0, TUNNELS_MAX);
    for (const tunnel of shown) yield line('tunnel', tunnel);
    const ids = shown.map(({ tunnelId }) => tunnelId);
    const actions = await this.evidence.actions(ids, ACTIONS_MAX + 1);
    for (const action of actions.slice(0, ACTIONS_MAX)) yield line('action', action);

    const tally = { sessions: 0, connections: 0 };
    for (const tunnelId of ids) {
      if (tally.sessions >= SESSIONS_MAX) break;
      const sessions = inPages<EvidenceSession>((after) => this.evidence.sessions(tunnelId, query, after, PAGE));
      for await (const session of sessions) {
        if (tally.sessions >= SESSIONS_MAX) break;
        tally.sessions += 1;
        yield line('session', session);
      }
    }
    for (const tunnelId of ids) {
      if (tally.connections >= CONNECTIONS_MAX) break;
      const connections = inPages<EvidenceConnection>((after) =>
        this.evidence.connections(tunnelId, query, after, PAGE),
      );
      for await (const connection of connections) {
        if (tally.connections >= CONNECTIONS_MAX) break;
        tally.connections += 1;
        yield line('connection', connection);
      }
    }
    const truncated =
      tunnels.length > TUNNELS_MAX ||
      actions.length > ACTIONS_MAX ||
      tally.sessions >= SESSIONS_MAX ||
      tally.connections >= CONNECTIONS_MAX;
    // without this line the export was cut off on its way
    yield line('end', { tunnels: shown.length, ...tally, truncated });
  }
}

const line = (kind: string, what: object): string => `${JSON.stringify({ kind, ...what })}\n`;

/** All rows, fetched page by page; `next` gives those behind the last of the page before. */
async function* inPages<T>(next: (after: T | undefined) => Promise<T[]>): AsyncGenerator<T> {
  for (let after: T | undefined; ;) {
    const page = await next(after);
    yield* page;
    after = page.at(-1);
    if (page.length < PAGE) return;
  }
}
