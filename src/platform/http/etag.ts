/**
 * Entity tags (RFC 9110, 8.8.3), for clients that want to know whether something has changed, and that their change meets
 * what they have seen. A tag is `"<version of the row>-<hash of the view>"`: the hash changes with whatever the view shows,
 * and the version is what a statement can compare while it changes the row.
 *
 *     @Get(':id')   @Tagged()   get(…): Promise<Versioned<TunnelView>>
 *     @Patch(':id') @Tagged()   update(…, @IfMatch() versions): Promise<Versioned<TunnelView>>
 *     UPDATE … WHERE id = … AND ${matchesVersion(versions)}
 */
import { createHash } from 'node:crypto';

import {
  applyDecorators,
  type CallHandler,
  createParamDecorator,
  type ExecutionContext,
  Injectable,
  type NestInterceptor,
  UseInterceptors,
} from '@nestjs/common';
import { ApiHeader } from '@nestjs/swagger';
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { map, type Observable } from 'rxjs';
import { z } from 'zod';

import { Prisma } from '../database/generated/client.js';
import { PlatformError } from '../errors/error-register.js';

/** A view, and the version of the row behind it. */
export interface Versioned<T> {
  readonly version: number;
  readonly view: T;
}

/** A view that shows the version of its row. */
export function versioned<T extends { readonly version: number }>(view: T): Versioned<T> {
  return { version: view.version, view };
}

const Answer = z.object({ version: z.int(), view: z.unknown() });

/** Versions that a caller has seen and wants to change; undefined: whichever there is. */
export type SeenVersions = readonly number[] | undefined;

const TAG_LIST = /^(?:W\/)?"[\x21\x23-\x7e]*"(?:\s*,\s*(?:W\/)?"[\x21\x23-\x7e]*")*$/;
/** Ours, and strong: If-Match compares no weak ones. Nine digits are within what the database keeps as `integer`. */
const OUR_TAG = /(?<!W\/)"(\d{1,9})-[0-9a-f]{16}"/g;

@Injectable()
class TagInterceptor implements NestInterceptor {
  intercept(context: ExecutionContext, next: CallHandler): Observable<unknown> {
    const reply = context.switchToHttp().getResponse<FastifyReply>();
    return next.handle().pipe(
      map((answer) => {
        const { version, view } = Answer.parse(answer);
        const hash = createHash('sha256').update(JSON.stringify(view)).digest('hex').slice(0, 16);
        void reply.header('etag', `"${version}-${hash}"`);
        return view;
      }),
    );
  }
}

/** The route returns a {@link Versioned} view: it is answered with an `ETag`. */
export const Tagged = () => UseInterceptors(TagInterceptor);

/** The route takes `If-Match`, by {@link IfMatch}. */
export const Conditional = () =>
  applyDecorators(
    ApiHeader({
      name: 'If-Match',
      required: false,
      description: 'An ETag that was answered: the change is made only if nothing has changed since',
    }),
  );

/** What the request's `If-Match` allows. */
export const IfMatch = createParamDecorator((_: unknown, context: ExecutionContext): SeenVersions => {
  const header = context.switchToHttp().getRequest<FastifyRequest>().headers['if-match']?.trim();
  if (header === undefined || header === '*') return undefined;
  if (!TAG_LIST.test(header)) {
    throw new PlatformError('VALIDATION_FAILED', {
      errors: [{ path: 'If-Match', message: 'must be * or a list of entity tags, each in quotes' }],
    });
  }
  return [...header.matchAll(OUR_TAG)].map(([, version]) => Number(version));
});

/** The condition of a statement that changes a row. `column`: its version. */
export function matchesVersion(versions: SeenVersions, column = Prisma.sql`version`): Prisma.Sql {
  return versions === undefined ? Prisma.sql`true` : Prisma.sql`${column} = ANY (${[...versions]}::int[])`;
}

/** Answers 304 to who has the very answer already. */
export function answerNotModified(server: FastifyInstance): void {
  server.addHook('onSend', async (request, reply, payload) => {
    const known = request.headers['if-none-match']?.trim();
    const tag = reply.getHeader('etag');
    if (known === undefined || typeof tag !== 'string' || reply.statusCode !== 200 || request.method !== 'GET')
      return payload;
    // Not split by a pattern that takes the spaces too: those can be 16,000. Compared weakly: a proxy that compresses answers marks
    // their tags as weak
    if (known !== '*' && !known.split(',').some((one) => one.trim().replace(/^W\//, '') === tag)) return payload;
    void reply.code(304).removeHeader('content-length').removeHeader('content-type');
    return null;
  });
}
