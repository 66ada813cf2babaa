import { randomBytes } from 'node:crypto';

import { Inject, Injectable } from '@nestjs/common';

import { CONFIG, type Config } from '../platform/config/config.js';
import { keyOfSecret } from '../protocol/challenge.js';
import { Sealer } from '../protocol/sealing.js';

/** `tk_` and 256 random bits, base64url: the secret that a client gives as `--secret`. */
export function tunnelToken(secret: Buffer = randomBytes(32)): string {
  return `tk_${secret.toString('base64url')}`;
}

/** Keeps tunnels' HMAC keys sealed at rest. The token itself is not kept: its key is all that the wire needs. */
@Injectable()
export class TunnelKeys {
  private readonly sealer: Sealer;

  constructor(@Inject(CONFIG) config: Config) {
    this.sealer = new Sealer(
      config.TUNNEL_KEY_SECRET.map((secret) => secret.reveal()),
      'tunnel key',
    );
  }

  /** The sealed key of a token, bound to its tunnel. */
  seal(token: string, tunnelId: string): Buffer<ArrayBuffer> {
    return this.sealer.seal(keyOfSecret(token), tunnelId);
  }

  /** @throws SealError */
  open(sealedKey: Uint8Array, tunnelId: string): Buffer {
    return this.sealer.open(sealedKey, tunnelId);
  }
}
