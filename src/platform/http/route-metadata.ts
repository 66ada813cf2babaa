/**
 * Who may call a route, as metadata only; the guards that read it are in `auth`. A route without any of these needs
 * a logged-in user.
 */
import { createParamDecorator, SetMetadata, type ExecutionContext } from '@nestjs/common';
import type { FastifyRequest } from 'fastify';

export type Access = 'public' | 'user' | 'admin' | 'internal';

export const ACCESS_KEY = 'bore:access';

/** Anyone, without a login. */
export const Public = () => SetMetadata(ACCESS_KEY, 'public' satisfies Access);
/** Administrators only. */
export const AdminOnly = () => SetMetadata(ACCESS_KEY, 'admin' satisfies Access);
/** bore-servers only, by the internal key. */
export const InternalOnly = () => SetMetadata(ACCESS_KEY, 'internal' satisfies Access);

/** Who is calling, as the guard found out. */
export interface Caller {
  readonly userId: string;
  readonly sessionId: string;
  readonly email: string;
  readonly name: string | null;
  readonly role: 'user' | 'admin';
  readonly plan: 'free' | 'pro' | 'enterprise';
}

declare module 'fastify' {
  interface FastifyRequest {
    /** Set by the access guard on every route that is not public or internal. */
    caller?: Caller;
  }
}

/** The caller of a route that needs a login. */
export const CurrentCaller = createParamDecorator((_: unknown, context: ExecutionContext): Caller => {
  const { caller } = context.switchToHttp().getRequest<FastifyRequest>();
  if (!caller) throw new Error('CurrentCaller is used on a route that needs no login');
  return caller;
});
