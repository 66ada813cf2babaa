import { Inject, Injectable } from '@nestjs/common';

import { CONFIG, type Config } from '../platform/config/config.js';
import { PlatformError } from '../platform/errors/error-register.js';
import type { SeenVersions } from '../platform/http/etag.js';
import { cutPage, keyOfCursor, type Page } from '../platform/http/page.js';
import type { Caller } from '../platform/http/route-metadata.js';
import { BoreServerClient } from '../servers/bore-server-client.js';
import { orderClosed } from '../servers/close-orders.js';
import {
  type AdminUserView,
  keyOfUser,
  type ListUsersQuery,
  type UpdateUserRequest,
  userKeyOf,
  viewAdminUser,
} from '../users/admin-user.js';
import { UserDirectoryRepository } from '../users/user-directory.repository.js';
import {
  type AdminTunnelView,
  adminTunnelKey,
  type ListAdminTunnelsQuery,
  type SuspendTunnelRequest,
  viewAdminTunnel,
} from './admin-tunnel.js';
import { AdministrationRepository, type Decided } from './administration.repository.js';
import { AllTunnelsRepository } from './all-tunnels.repository.js';

/**
 * Accounts and tunnels, as administrators work with them. Accounts are here and not in `users/`, because suspending one
 * ends its tunnels.
 */
@Injectable()
export class AdministrationService {
  constructor(
    @Inject(CONFIG) private readonly config: Config,
    private readonly users: UserDirectoryRepository,
    private readonly tunnels: AllTunnelsRepository,
    private readonly administration: AdministrationRepository,
    private readonly boreServers: BoreServerClient,
  ) {}

  /** @throws PlatformError VALIDATION_FAILED */
  async listUsers(query: ListUsersQuery): Promise<Page<AdminUserView>> {
    const after = query.cursor === undefined ? undefined : keyOfCursor(query.cursor, userKeyOf(query.sort));
    const rows = await this.users.list(query, after);
    return cutPage(rows.map(viewAdminUser), query.limit, keyOfUser(query.sort));
  }

  /** @throws PlatformError NOT_FOUND */
  async getUser(id: string): Promise<AdminUserView> {
    const user = await this.users.find(id);
    if (!user) throw new PlatformError('NOT_FOUND');
    return viewAdminUser(user);
  }

  /**
   * Changes an account. When it is suspended its tunnels are closed, on the wire too.
   * @throws PlatformError FORBIDDEN, NOT_FOUND, OWN_ACCOUNT, PRECONDITION_FAILED
   */
  async updateUser(
    caller: Caller,
    id: string,
    versions: SeenVersions,
    change: UpdateUserRequest,
  ): Promise<AdminUserView> {
    await this.apply(await this.administration.updateUser(caller.userId, id, versions, change));
    return this.getUser(id);
  }

  /** @throws PlatformError VALIDATION_FAILED */
  async listTunnels(query: ListAdminTunnelsQuery): Promise<Page<AdminTunnelView>> {
    const after = query.cursor === undefined ? undefined : keyOfCursor(query.cursor, adminTunnelKey);
    const rows = await this.tunnels.list(query, after);
    return cutPage(
      rows.map((row) => viewAdminTunnel(row, this.config.MAX_BANDWIDTH_PER_TUNNEL)),
      query.limit,
    );
  }

  /** @throws PlatformError NOT_FOUND */
  async getTunnel(id: string): Promise<AdminTunnelView> {
    const tunnel = await this.tunnels.find(id);
    if (!tunnel) throw new PlatformError('NOT_FOUND');
    return viewAdminTunnel(tunnel, this.config.MAX_BANDWIDTH_PER_TUNNEL);
  }

  /**
   * Closes anybody's tunnel, on the wire too; one that is closed already stays so.
   * @throws PlatformError FORBIDDEN, NOT_FOUND
   */
  async closeTunnel(caller: Caller, id: string): Promise<void> {
    const closed = await this.administration.closeTunnel(caller.userId, id);
    if (!closed) throw new PlatformError('FORBIDDEN');
    if (closed.length === 0) await this.getTunnel(id);
    await orderClosed(this.boreServers, closed);
  }

  /**
   * Closes a tunnel because of what it is used for, keeps its port from everybody for a time, and suspends its owner if
   * asked to. Its port is kept also when it was closed just before.
   * @throws PlatformError FORBIDDEN, NOT_FOUND, OWN_ACCOUNT, TUNNEL_CLOSED
   */
  async suspendTunnel(caller: Caller, id: string, request: SuspendTunnelRequest): Promise<AdminTunnelView> {
    const quarantineHours = request.quarantineHours ?? this.config.ABUSE_QUARANTINE_HOURS;
    const decided = await this.administration.suspendTunnel(caller.userId, id, { ...request, quarantineHours });
    if (decided.outcome === 'closed') throw await this.portIsLost(id, quarantineHours);
    await this.apply(decided);
    return this.getTunnel(id);
  }

  /** Why the port of a closed tunnel was not put into quarantine. */
  private async portIsLost(id: string, quarantineHours: number): Promise<PlatformError> {
    const { serverId, port } = await this.getTunnel(id);
    const holders = { serverId, port, state: 'open', sort: '-createdAt', limit: 1 } as const;
    const [holder] = await this.tunnels.list(holders, undefined);
    return new PlatformError('TUNNEL_CLOSED', {
      detail: holder
        ? `The tunnel is closed, and tunnel ${holder.id} has its port now`
        : `The tunnel was closed more than ${quarantineHours} hours ago`,
    });
  }

  private async apply({ outcome, closed }: Decided): Promise<void> {
    switch (outcome) {
      case 'updated':
        return orderClosed(this.boreServers, closed);
      case 'forbidden':
        throw new PlatformError('FORBIDDEN');
      case 'not_found':
        throw new PlatformError('NOT_FOUND');
      case 'changed':
        throw new PlatformError('PRECONDITION_FAILED');
      case 'own_account':
        throw new PlatformError('OWN_ACCOUNT');
      case 'closed':
        throw new PlatformError('TUNNEL_CLOSED');
    }
  }
}
