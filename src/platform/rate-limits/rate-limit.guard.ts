import type { ExecutionContext } from '@nestjs/common';
import type { Reflector } from '@nestjs/core';
import { ThrottlerGuard, type ThrottlerOptions, type ThrottlerRequest } from '@nestjs/throttler';
import type { FastifyReply, FastifyRequest } from 'fastify';

import { INTERNAL_PREFIX } from '../../protocol/plane-api.js';
import type { Config } from '../config/config.js';
import { PlatformError } from '../errors/error-register.js';
import { limitedAddressOf } from './client-address.js';
import { retryAfterOf } from './counter-window.js';
import { type Counters, LIMIT_NAMES } from './counters.js';
import { LIMITED_KEY, type StrictLimit } from './limited.decorator.js';

const MINUTE_MS = 60_000;
const HOUR_MS = 60 * MINUTE_MS;

/** So many people may work behind one address: what all of them may ask for before anybody has looked at their logins. */
const PEOPLE_PER_ADDRESS = 10;

/**
 * Refuses who asks too often, with 429 and `Retry-After`, and tells everybody how much is left (`RateLimit` and
 * `RateLimit-Policy`, draft-ietf-httpapi-ratelimit-headers-11). It runs before bodies are validated and passwords hashed.
 * bore-servers, health checks and metrics are not limited.
 */
export class RateLimitGuard extends ThrottlerGuard {
  constructor(
    throttlers: ThrottlerOptions[],
    private readonly counters: Counters,
    reflector: Reflector,
  ) {
    // the library's own storage answers less than we tell
    super({ throttlers }, { increment: () => Promise.reject(new Error('Counters are used instead')) }, reflector);
  }

  protected override async shouldSkip(context: ExecutionContext): Promise<boolean> {
    const { url = '' } = requestOf(context).routeOptions;
    return !url.startsWith('/api/') || url.startsWith(INTERNAL_PREFIX);
  }

  protected override async handleRequest(limited: ThrottlerRequest): Promise<boolean> {
    const { context, limit, ttl, throttler, getTracker } = limited;
    const tracker = await getTracker({}, context);
    const window = { key: `${throttler.name}:${tracker}`, quota: limit, seconds: ttl / 1000 };
    const taken = await this.counters.take([window]);
    const [rest = { left: 0, resetMs: 0 }] = taken.windows;
    const reply = context.switchToHttp().getResponse<FastifyReply>();
    append(reply, 'ratelimit-policy', `"${throttler.name}";q=${window.quota};w=${window.seconds}`);
    append(reply, 'ratelimit', `"${throttler.name}";r=${rest.left};t=${Math.ceil(rest.resetMs / 1000)}`);
    if (taken.granted) return true;
    const reached = LIMIT_NAMES.find((name) => name === throttler.name);
    if (reached) this.counters.refusals.emit('refused', reached);
    throw new PlatformError('TOO_MANY_REQUESTS', { retryAfter: retryAfterOf(taken) });
  }
}

/**
 * By address, before anybody is asked who they are. Whoever brings a login counts by a wide limit here, and by account
 * afterwards ({@link userLimits}): an office behind one address is many callers. A false login gains only the wide limit.
 */
export function addressLimits(config: Config, reflector: Reflector): ThrottlerOptions[] {
  const getTracker: ThrottlerOptions['getTracker'] = (_, context) => limitedAddressOf(requestOf(context).ip);
  const bringsLogin = (context: ExecutionContext) => requestOf(context).headers.authorization !== undefined;
  const quota = config.RATE_LIMIT_PER_MINUTE;
  const strict = (name: StrictLimit, limit: number, ttl: number): ThrottlerOptions => ({
    name,
    limit,
    ttl,
    getTracker,
    skipIf: (context) => reflector.get<StrictLimit | undefined>(LIMITED_KEY, context.getHandler()) !== name,
  });
  const logins = config.RATE_LIMIT_LOGINS_PER_MINUTE;
  return [
    { name: 'address', limit: quota, ttl: MINUTE_MS, getTracker, skipIf: bringsLogin },
    {
      name: 'office',
      limit: quota * PEOPLE_PER_ADDRESS,
      ttl: MINUTE_MS,
      getTracker,
      skipIf: (context) => !bringsLogin(context),
    },
    strict('signup', config.RATE_LIMIT_SIGNUPS_PER_HOUR, HOUR_MS),
    strict('login', logins, MINUTE_MS),
    strict('refresh', logins, MINUTE_MS),
    strict('password', logins, MINUTE_MS),
  ];
}

/** By account, once the access guard knows it; wherever they call from. */
export function userLimits(config: Config): ThrottlerOptions[] {
  return [
    {
      name: 'user',
      limit: config.RATE_LIMIT_PER_MINUTE,
      ttl: MINUTE_MS,
      getTracker: (_, context) => requestOf(context).caller?.userId ?? '',
      skipIf: (context) => requestOf(context).caller === undefined,
    },
  ];
}

function requestOf(context: ExecutionContext): FastifyRequest {
  return context.switchToHttp().getRequest<FastifyRequest>();
}

/** Both headers are lists: a request may meet several limits. */
function append(reply: FastifyReply, header: string, item: string): void {
  const before = reply.getHeader(header);
  void reply.header(header, before === undefined ? item : `${String(before)}, ${item}`);
}
