import { createHash } from 'node:crypto';

import { Injectable } from '@nestjs/common';

import type { PeerDirectory } from '../protocol/peers.js';
import { ServersRepository } from './servers.repository.js';

/** What bore-servers are told of the others that share their public name. */
@Injectable()
export class PeerDirectories {
  constructor(private readonly servers: ServersRepository) {}

  /** The directory of a server; its version is its content's. */
  async of(serverId: string): Promise<PeerDirectory> {
    const peers = await this.servers.peersOf(serverId);
    return { version: createHash('sha256').update(JSON.stringify(peers)).digest('hex').slice(0, 32), peers };
  }
}
