import http from 'node:http';
import https from 'node:https';

import type { Secret } from '../platform/config/secret.js';
import type { Message } from './notification-target.js';
import { AddressRefusedError, guardedLookup, isRefusedLiteral, type Resolve } from './public-address.js';

/** From the beginning to the head of the answer, resolving the name included. A chat or a webhook takes well below a second. */
const TIMEOUT_MS = 5_000;
/** No answer tells us to wait longer: by then the attempts are over. */
const RETRY_AFTER_SECONDS_MAX = 3_600;

/** What came of an attempt. `failure`: a few words that hold nothing of the URL, nor of what was answered. */
export type Posted =
  | { readonly sent: true }
  | { readonly sent: false; readonly failure: string; readonly retryAfterSeconds?: number; readonly forGood?: boolean };

/**
 * Sends one POST. Only a 2xx is success; redirects are not followed, and the body of the answer is not read. Never throws: whatever
 * goes wrong there is the receiver's.
 * @param allowed networks that may be connected to although they are not public
 */
export async function post(
  url: Secret,
  message: Message,
  allowed: readonly string[],
  resolve?: Resolve,
): Promise<Posted> {
  const target = new URL(url.reveal());
  if (isRefusedLiteral(target.hostname, allowed)) return { sent: false, failure: 'the address is not allowed' };
  const { request } = target.protocol === 'https:' ? https : http;
  const signal = AbortSignal.timeout(TIMEOUT_MS);
  return new Promise((settle) => {
    const fail = (error: Error) => settle({ sent: false, failure: signal.aborted ? 'timed out' : reasonOf(error) });
    try {
      const outgoing = request(target, {
        method: 'POST',
        // a connection for each: few are sent, and a kept one might be to an address that is not the name's any more
        agent: false,
        lookup: guardedLookup(allowed, resolve),
        signal,
        headers: {
          ...message.headers,
          'content-length': Buffer.byteLength(message.body),
          'user-agent': 'bore-platform',
        },
      });
      outgoing.on('error', fail);
      outgoing.on('response', (response) => {
        // however long the body may be, the head has said it
        response.destroy();
        settle(outcomeOf(response));
      });
      // 101 comes as this, and without a listener as nothing at all
      outgoing.on('upgrade', (response, socket) => {
        socket.destroy();
        settle(outcomeOf(response));
      });
      // last, and for nothing if it is settled: a promise for ever would keep a worker for ever
      outgoing.on('close', () => fail(new Error('ended without an answer')));
      outgoing.end(message.body);
    } catch (error) {
      fail(error instanceof Error ? error : new Error(String(error)));
    }
  });
}

function outcomeOf({ statusCode = 0, headers }: http.IncomingMessage): Posted {
  if (statusCode >= 200 && statusCode < 300) return { sent: true };
  const failure = `answered ${statusCode}`;
  // whoever says so never wants to hear from us again (standardwebhooks.com)
  if (statusCode === 410) return { sent: false, failure, forGood: true };
  const seconds = Number(headers['retry-after']);
  if (!(seconds > 0)) return { sent: false, failure };
  return { sent: false, failure, retryAfterSeconds: Math.min(Math.ceil(seconds), RETRY_AFTER_SECONDS_MAX) };
}

/** The code alone: messages hold addresses and names. */
function reasonOf(error: Error): string {
  if (error instanceof AddressRefusedError) return error.message;
  return 'code' in error && typeof error.code === 'string' ? error.code : 'the request failed';
}
