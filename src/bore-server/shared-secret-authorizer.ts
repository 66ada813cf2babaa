import { randomInt } from 'node:crypto';

import { keyOfSecret, randomUuid, verifyAnswer } from '../protocol/challenge.js';
import type { Grant } from '../protocol/plane-api.js';
import type { TunnelSettings } from '../protocol/tunnel-settings.js';
import type { Applicant, Authorizer } from './authorizer.js';
import { Refusal, Rejection } from './handshake.js';

/** Random ports tried for a client that asks for any; upstream explains the number (bore 0.6.0, src/server.rs). */
const PORT_TRIES = 150;

/** Nobody has decided anything: the server's own limits count. */
const NO_SETTINGS: TunnelSettings = {
  version: 0,
  maxConnections: null,
  bandwidthMbps: null,
  allowCidrs: [],
  denyCidrs: [],
  proxyProtocol: null,
};

/** Stand-alone: whoever knows the one secret may have any port of the range that is free, like upstream's server. */
export class SharedSecretAuthorizer implements Authorizer {
  readonly allowsTakeover = false;
  private readonly key: Buffer;

  constructor(
    secret: string,
    private readonly range: { min: number; max: number },
    private readonly isTaken: (port: number) => boolean,
  ) {
    if (secret === '') throw new Error('an empty secret would let everybody in');
    this.key = keyOfSecret(secret);
  }

  async authorize({ port, challenge, tag }: Applicant): Promise<Grant> {
    if (!verifyAnswer(this.key, challenge, tag)) throw new Rejection('invalid secret');
    return {
      tunnelId: randomUuid(),
      sessionId: randomUuid(),
      epoch: 1,
      port: port === 0 ? this.anyPort() : this.thisPort(port),
      key: this.key.toString('hex'),
      keyVersion: 0,
      settings: NO_SETTINGS,
      expiresAt: null,
    };
  }

  private thisPort(port: number): number {
    if (port < this.range.min || port > this.range.max) throw new Refusal('client port number not in allowed range');
    if (this.isTaken(port)) throw new Refusal('port already in use');
    return port;
  }

  private anyPort(): number {
    for (let i = 0; i < PORT_TRIES; i++) {
      const port = randomInt(this.range.min, this.range.max + 1);
      if (!this.isTaken(port)) return port;
    }
    throw new Refusal('failed to find an available port');
  }
}
