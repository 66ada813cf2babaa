import { Injectable } from '@nestjs/common';

import { PlatformError } from '../platform/errors/error-register.js';
import type { SeenVersions } from '../platform/http/etag.js';
import { cutPage, keyOfCursor, type Page } from '../platform/http/page.js';
import { ServerId } from '../protocol/plane-api.js';
import { BoreServerClient } from './bore-server-client.js';
import { orderClosed } from './close-orders.js';
import {
  type CreateServerRequest,
  type ListServersQuery,
  type ServerView,
  type UpdateServerRequest,
  viewServer,
} from './server.js';
import { ServerAdministrationRepository } from './server-administration.repository.js';
import { ServersRepository } from './servers.repository.js';

/** The register of bore-servers, as administrators work with it. */
@Injectable()
export class ServersService {
  constructor(
    private readonly servers: ServersRepository,
    private readonly administration: ServerAdministrationRepository,
    private readonly boreServers: BoreServerClient,
  ) {}

  /** @throws PlatformError SERVER_EXISTS */
  async create(request: CreateServerRequest, creation: string): Promise<ServerView> {
    if (!(await this.administration.create(request, creation))) throw new PlatformError('SERVER_EXISTS');
    return this.get(request.id);
  }

  /** @throws PlatformError NOT_FOUND */
  async get(id: string): Promise<ServerView> {
    const server = await this.servers.find(id);
    if (!server) throw new PlatformError('NOT_FOUND');
    return viewServer(server);
  }

  /**
   * Changes a server; disabling it ends its sessions, on the wire too.
   * @throws PlatformError NOT_FOUND, PORT_RANGE_TAKEN, PRECONDITION_FAILED
   */
  async update(id: string, versions: SeenVersions, change: UpdateServerRequest): Promise<ServerView> {
    const { outcome, fenced } = await this.administration.update(id, versions, change);
    if (outcome === 'not_found') throw new PlatformError('NOT_FOUND');
    if (outcome === 'port_range_taken') throw new PlatformError('PORT_RANGE_TAKEN');
    if (outcome === 'changed') throw new PlatformError('PRECONDITION_FAILED');
    await orderClosed(
      this.boreServers,
      fenced.map((tunnel) => ({ ...tunnel, reason: 'server disabled' })),
    );
    return this.get(id);
  }

  /** @throws PlatformError NOT_FOUND, SERVER_IN_USE */
  async delete(id: string): Promise<void> {
    const outcome = await this.administration.delete(id);
    if (outcome === 'not_found') throw new PlatformError('NOT_FOUND');
    if (outcome === 'in_use') throw new PlatformError('SERVER_IN_USE');
  }

  /**
   * Begins or ends the draining of a server: it keeps its tunnels and takes no new ones.
   * @throws PlatformError NOT_FOUND
   */
  async drain(id: string, drain: boolean): Promise<ServerView> {
    if (!(await this.administration.setDrainRequested(id, drain))) throw new PlatformError('NOT_FOUND');
    return this.get(id);
  }

  async list(query: ListServersQuery): Promise<Page<ServerView>> {
    const after = query.cursor === undefined ? undefined : keyOfCursor(query.cursor, ServerId);
    const rows = await this.servers.list(query, after);
    return cutPage(
      rows.map((row) => viewServer(row)),
      query.limit,
    );
  }
}
