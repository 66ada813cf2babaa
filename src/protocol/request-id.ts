import { z } from 'zod';

/**
 * Header that carries the id of a request, both ways between planes and from proxies: what each program logs about one request has
 * the same id.
 */
export const REQUEST_ID_HEADER = 'x-request-id';

/** An id that somebody else gave a request, where it is safe to log, to store and to send on. */
export const RequestId = z.string().regex(/^[\w.-]{8,64}$/);

/** The id that a request came with; `undefined`: none that we take. */
export function givenRequestId(headers: NodeJS.Dict<string | string[]>): string | undefined {
  return RequestId.safeParse(headers[REQUEST_ID_HEADER]).data;
}
