import { Injectable } from '@nestjs/common';

import { PlatformError } from '../platform/errors/error-register.js';
import { cutPage, keyOfCursor, type Page, type PageQuery } from '../platform/http/page.js';
import { ServerId } from '../protocol/plane-api.js';
import { type CreateServerRequest, type ServerView, viewServer } from './server.js';
import { ServersRepository } from './servers.repository.js';

/** The register of bore-servers, as administrators work with it. */
@Injectable()
export class ServersService {
  constructor(private readonly servers: ServersRepository) {}

  /** @throws PlatformError SERVER_EXISTS */
  async create(request: CreateServerRequest): Promise<ServerView> {
    const server = await this.servers.create(request);
    if (!server) throw new PlatformError('SERVER_EXISTS');
    return viewServer(server);
  }

  /** @throws PlatformError NOT_FOUND */
  async get(id: string): Promise<ServerView> {
    const server = await this.servers.find(id);
    if (!server) throw new PlatformError('NOT_FOUND');
    return viewServer(server);
  }

  /**
   * Begins or ends the draining of a server: it keeps its tunnels and takes no new ones.
   * @throws PlatformError NOT_FOUND
   */
  async drain(id: string, drain: boolean): Promise<ServerView> {
    const server = await this.servers.setDrainRequested(id, drain);
    if (!server) throw new PlatformError('NOT_FOUND');
    return viewServer(server);
  }

  async list({ limit, cursor }: PageQuery): Promise<Page<ServerView>> {
    const after = cursor === undefined ? undefined : keyOfCursor(cursor, ServerId);
    const rows = await this.servers.list(limit + 1, after);
    return cutPage(
      rows.map((row) => viewServer(row)),
      limit,
    );
  }
}
