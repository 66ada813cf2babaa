import { randomUUID } from 'node:crypto';
import type { Socket } from 'node:net';

import { ERROR_REGISTER, type ErrorCode, PlatformError } from '../errors/error-register.js';
import { problemOf } from './problem.filter.js';

/** Answers what never became a request, because it was too slow or is no HTTP, like any other error, and ends the connection. */
export function answerClientError(error: Error & { readonly code?: string }, socket: Socket): void {
  if (error.code === 'ECONNRESET' || !socket.writable) {
    socket.destroy();
    return;
  }
  const code: ErrorCode = error.code === 'ERR_HTTP_REQUEST_TIMEOUT' ? 'REQUEST_TIMEOUT' : 'MALFORMED_REQUEST';
  const problem = problemOf(new PlatformError(code), { id: randomUUID(), url: '/' });
  const body = JSON.stringify(problem);
  const head = [
    `HTTP/1.1 ${problem.status} ${ERROR_REGISTER[code].title}`,
    'content-type: application/problem+json',
    `content-length: ${Buffer.byteLength(body)}`,
    `x-request-id: ${problem.requestId}`,
    'x-content-type-options: nosniff',
    'cache-control: no-store',
    'connection: close',
  ];
  socket.end(`${head.join('\r\n')}\r\n\r\n${body}`, () => socket.destroy());
}
