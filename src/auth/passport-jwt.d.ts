/**
 * The part of passport-jwt that we use. DefinitelyTyped's declaration knows no `KeyObject`, which passport-jwt hands to
 * jsonwebtoken as it is.
 */
declare module 'passport-jwt' {
  import type { KeyObject } from 'node:crypto';
  import type { Algorithm } from 'jsonwebtoken';
  import type { Strategy as PassportStrategy } from 'passport';

  /** Given the request as Fastify has it. */
  type Extractor = (request: { readonly headers: { readonly authorization?: string | undefined } }) => string | null;

  interface StrategyOptions {
    jwtFromRequest: Extractor;
    secretOrKey: KeyObject;
    algorithms: Algorithm[];
    issuer: string;
    audience: string;
    jsonWebTokenOptions: { complete: true };
  }

  export class Strategy extends PassportStrategy {
    constructor(
      options: StrategyOptions,
      verify: (payload: unknown, done: (error: unknown, user?: object | false) => void) => void,
    );
  }
}
