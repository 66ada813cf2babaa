/**
 * Who may call a route, as metadata only; the guard that reads it is in `auth`. A route without any of these is refused to
 * everybody: a new route is a decision. OpenAPI says the same, in `security` and `x-access`.
 */
import { applyDecorators, createParamDecorator, SetMetadata, type ExecutionContext } from '@nestjs/common';
import { ApiBearerAuth, ApiExtension, ApiSecurity } from '@nestjs/swagger';
import type { FastifyRequest } from 'fastify';

import type { ApiKeyScope } from './api-key-scope.js';

export type Access =
  | { readonly kind: 'public' | 'internal' }
  /** `scope`: what an API key must hold; null: logins only. */
  | { readonly kind: 'user' | 'admin'; readonly scope: ApiKeyScope | null };

export const ACCESS_KEY = 'bore:access';

const access = (value: Access, ...documented: (ClassDecorator & MethodDecorator)[]) =>
  applyDecorators(SetMetadata(ACCESS_KEY, value), ApiExtension('x-access', value), ...documented);

const accountAccess = (kind: 'user' | 'admin', scope: ApiKeyScope | null) =>
  access({ kind, scope }, ApiBearerAuth(), ...(scope ? [ApiSecurity('apiKey', [scope])] : []));

/** Anyone, without a login. */
export const Public = () => access({ kind: 'public' });
/** Any account: its logins, and its API keys that hold `scope`. */
export const AccountOnly = (scope: ApiKeyScope) => accountAccess('user', scope);
/** Any account, logged in: what an API key must never do, such as making another (OWASP ASVS 5.0, 7.2.2). */
export const LoginOnly = () => accountAccess('user', null);
/** Administrators: their logins, and their API keys that hold `scope`. */
export const AdminOnly = (scope: ApiKeyScope) => accountAccess('admin', scope);
/** bore-servers, by the internal key. */
export const InternalOnly = () => access({ kind: 'internal' }, ApiSecurity('internalKey'));

/** Who is calling, as the guard found out. */
export interface Caller {
  readonly userId: string;
  /** The login, or the API key, that the request came with: one of the two. */
  readonly sessionId: string | null;
  readonly apiKeyId: string | null;
  /** What the API key may do; null: a login, which may do what its account may. */
  readonly scopes: readonly ApiKeyScope[] | null;
  readonly email: string;
  readonly name: string | null;
  readonly role: 'user' | 'admin';
  readonly plan: 'free' | 'pro' | 'enterprise';
  /** Of the database's log, what a replica must have replayed to show the account its own writes; null: no replica may. */
  readonly readFence: number | null;
}

declare module 'fastify' {
  interface FastifyRequest {
    /** Set by the access guard on every route that is not public or internal. */
    caller?: Caller;
  }
}

/** The caller of a route that needs an account. */
export const CurrentCaller = createParamDecorator((_: unknown, context: ExecutionContext): Caller => {
  const { caller } = context.switchToHttp().getRequest<FastifyRequest>();
  if (!caller) throw new Error('CurrentCaller is used on a route that needs no account');
  return caller;
});

/** A caller who is logged in. */
export type LoggedIn = Caller & { readonly sessionId: string };

/** The caller of a route that is for logins only. */
export const CurrentLogin = createParamDecorator((_: unknown, context: ExecutionContext): LoggedIn => {
  const { caller } = context.switchToHttp().getRequest<FastifyRequest>();
  if (!caller?.sessionId) throw new Error('CurrentLogin is used on a route that is not for logins only');
  return { ...caller, sessionId: caller.sessionId };
});
