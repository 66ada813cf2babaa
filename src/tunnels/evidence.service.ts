import { Readable } from 'node:stream';

import { Injectable } from '@nestjs/common';

import { AuditLogRepository } from '../audit/audit-log.repository.js';
import { noteWrite } from '../platform/http/request-context.js';
import type { Caller } from '../platform/http/route-metadata.js';
import type { EvidenceConnection, EvidenceQuery } from './evidence.js';
import { EvidenceRepository } from './evidence.repository.js';

/** A port that more tunnels had in a month is asked for in parts. */
const TUNNELS_MAX = 1_000;
const ACTIONS_MAX = 10_000;
/** Some 60 MB of text. */
const CONNECTIONS_MAX = 200_000;
/** Connections held in memory: one page. */
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

    let connections = 0;
    for (const tunnelId of ids) {
      for (let after: EvidenceConnection | undefined; connections < CONNECTIONS_MAX;) {
        const page = await this.evidence.connections(tunnelId, query, after, PAGE);
        for (const connection of page) yield line('connection', connection);
        connections += page.length;
        after = page.at(-1);
        if (page.length < PAGE) break;
      }
    }
    const truncated = tunnels.length > TUNNELS_MAX || actions.length > ACTIONS_MAX || connections >= CONNECTIONS_MAX;
    // without this line the export was cut off on its way
    yield line('end', { tunnels: shown.length, connections, truncated });
  }
}

const line = (kind: string, what: object): string => `${JSON.stringify({ kind, ...what })}\n`;
