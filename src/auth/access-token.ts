import { createSecretKey } from 'node:crypto';

import { Inject, Injectable } from '@nestjs/common';
import jwt from 'jsonwebtoken';
import { z } from 'zod';

import { CONFIG, type Config } from '../platform/config/config.js';

/** What an access token is checked for; one algorithm, so that a token cannot choose (RFC 8725 §3.1). */
export const ACCESS_TOKEN_CHECKS = {
  algorithms: ['HS256'] satisfies jwt.Algorithm[],
  issuer: 'bore-platform',
  audience: 'bore-platform-api',
};

/** Says in the header that this is an access token (RFC 9068): no other JWT under our key can pass for one (RFC 8725 §3.11). */
const TOKEN_TYPE = 'at+jwt';

/** A token whose signature, times, issuer and audience are right. The account itself is looked up with each request. */
export const AccessToken = z.object({
  header: z.object({ typ: z.literal(TOKEN_TYPE) }),
  payload: z.object({ sub: z.guid(), sid: z.guid() }),
});

/**
 * The key that signs access tokens. A `KeyObject`, never a string: with a string jsonwebtoken tries to read it as a
 * public key first, which costs more than everything else in the check.
 */
export function signingKeyOf(config: Config) {
  return createSecretKey(Buffer.from(config.JWT_SECRET.reveal()));
}

/** Issues access tokens: JWTs (HS256) that live for `ACCESS_TOKEN_SECONDS`. */
@Injectable()
export class AccessTokenIssuer {
  readonly lifeSeconds: number;
  private readonly key;

  constructor(@Inject(CONFIG) config: Config) {
    this.lifeSeconds = config.ACCESS_TOKEN_SECONDS;
    this.key = signingKeyOf(config);
  }

  issue(userId: string, sessionId: string): string {
    const { algorithms, issuer, audience } = ACCESS_TOKEN_CHECKS;
    return jwt.sign({ sid: sessionId }, this.key, {
      algorithm: algorithms[0] ?? 'HS256',
      header: { alg: algorithms[0] ?? 'HS256', typ: TOKEN_TYPE },
      issuer,
      audience,
      subject: userId,
      expiresIn: this.lifeSeconds,
    });
  }
}
