import { createParamDecorator, type ExecutionContext } from '@nestjs/common';
import type { FastifyReply, FastifyRequest } from 'fastify';

/** Equals no version: they are positive, or zero. */
const NO_VERSION = -1;

/**
 * The version that a change must be based on, from `If-Match`; null: any, because the caller named none. What is no ETag
 * of ours equals none (RFC 9110 §13.1.1: 412), and a weak one never does.
 */
export function versionOf(header: string | undefined): number | null {
  if (header === undefined || header.trim() === '*') return null;
  const [, digits] = /^"(\d{1,9})"$/.exec(header.trim()) ?? [];
  return digits === undefined ? NO_VERSION : Number(digits);
}

/** `If-Match` of the request, read by {@link versionOf}. */
export const IfMatch = createParamDecorator((_: unknown, context: ExecutionContext): number | null =>
  versionOf(context.switchToHttp().getRequest<FastifyRequest>().headers['if-match']),
);

/** Gives the answer the ETag of what it shows; returns it. */
export function tagged<T extends { readonly version: number }>(reply: FastifyReply, shown: T): T {
  void reply.header('etag', `"${shown.version}"`);
  return shown;
}
