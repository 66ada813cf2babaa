/** A backend that stops, as its callers see it. */
import { once } from 'node:events';
import net from 'node:net';
import { setTimeout } from 'node:timers/promises';

import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { startBackend } from '../harness/backend.js';
import { createDatabase, type TestDatabase } from '../harness/database.js';

/** Callers at once, each of whom connects anew for each request: the backend always has connections that it has not seen. */
const CALLERS = 8;
const ROUNDS = 4;
/** Between a caller's requests, in ms, in turn: some hundred connections a second, and moments in which nobody connects. */
const PAUSES_MS = [0, 3, 7, 11];
/** So long nobody has connected when it stops listening: who comes again after such a pause is held by then. */
const QUIET_MS = 20;
/** It gives up, with an error, after 10 s. */
const STOP_MS = 8_000;
const REQUEST =
  'POST /api/v1/auth/login HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}';

let database: TestDatabase;

beforeAll(async () => {
  database = await createDatabase();
});

afterAll(() => database?.drop());

type Outcome = 'answered' | 'refused' | 'lost';

/** A request on a connection of its own. */
function ask(port: number): Promise<Outcome> {
  return new Promise((resolve) => {
    let outcome: Outcome = 'refused';
    const socket = net.connect(port, '127.0.0.1');
    socket.on('connect', () => {
      outcome = 'lost';
      socket.write(REQUEST);
    });
    socket.on('data', () => {
      outcome = 'answered';
      socket.destroy();
    });
    socket.on('error', () => undefined).on('close', () => resolve(outcome));
  });
}

describe('a backend that stops under load', () => {
  it.each([
    ['that never ends', () => 0],
    ['with moments of rest', (turn: number) => PAUSES_MS[turn % PAUSES_MS.length]],
  ])(
    '%s answers whoever it let connect, and refuses the rest: a load balancer may repeat what was refused, and nothing else',
    async (_, pauseMs) => {
      // late: who connects when nobody has for longer than the backend waits, because the machine did other things
      const outcomes = { answered: 0, refused: 0, lost: 0, late: 0 };
      const lastAnswersMs: number[] = [];
      for (let round = 0; round < ROUNDS; round++) {
        const backend = await startBackend({ database, env: { SHUTDOWN_DRAIN_SECONDS: '1' } });
        const port = Number(new URL(backend.url).port);
        let connectedAt = performance.now();
        const caller = async (_each: unknown, i: number): Promise<void> => {
          let answerMs = 0;
          for (let turn = i; ; turn++) {
            const began = performance.now();
            const isLate = began - connectedAt >= QUIET_MS;
            connectedAt = began;
            const outcome = await ask(port);
            outcomes[outcome === 'lost' && isLate ? 'late' : outcome]++;
            if (outcome === 'refused') return void lastAnswersMs.push(answerMs);
            answerMs = performance.now() - began;
            await setTimeout(pauseMs(turn));
          }
        };
        const callers = Array.from({ length: CALLERS }, caller);
        backend.signal('SIGTERM');
        await Promise.all(callers);
        expect(await backend.exitCode()).toBe(0);
      }
      // the median: on a busy machine a caller may come back later than it means to
      const heldMs = lastAnswersMs.toSorted((a, b) => a - b)[lastAnswersMs.length / 2] ?? 0;
      const figures = `${JSON.stringify(outcomes)}, their last requests held ${heldMs.toFixed(0)} ms`;
      process.stdout.write(`${ROUNDS} backends stopped under load: ${figures}\n`);
      expect(heldMs).toBeGreaterThan(QUIET_MS);
      expect(outcomes.lost).toBe(0);
      expect(outcomes.late).toBeLessThan(ROUNDS);
      expect(outcomes.refused).toBe(CALLERS * ROUNDS);
      expect(outcomes.answered).toBeGreaterThan(CALLERS * ROUNDS);
    },
  );

  it('ends kept-alive connections with an answer, and none under a request', async () => {
    const backend = await startBackend({ database, env: { SHUTDOWN_DRAIN_SECONDS: '2' } });
    const socket = net.connect(Number(new URL(backend.url).port), '127.0.0.1').setEncoding('utf8');
    const heard = new Promise<string>((resolve) => {
      let text = '';
      socket.on('data', (chunk: string) => {
        text += chunk;
        // idle since its first answer, as a load balancer's are
        if (text.match(/HTTP\/1\.1 /g)?.length === 1) backend.signal('SIGTERM');
      });
      socket.on('end', () => resolve(text));
    });
    socket.write(REQUEST);
    await backend.waitFor('"msg":"draining"');
    socket.write(REQUEST);
    const [, first = '', second = ''] = (await heard).split('HTTP/1.1 ');
    expect(first).toMatch(/^400 [^]*connection: keep-alive/i);
    expect(second).toMatch(/^400 [^]*connection: close/i);
    expect(await backend.exitCode()).toBe(0);
  });

  it('waits for no connection on which nothing comes, or half a request: a browser opens some in advance', async () => {
    const backend = await startBackend({ database, env: { SHUTDOWN_DRAIN_SECONDS: '0' } });
    const port = Number(new URL(backend.url).port);
    const silent = await Promise.all(
      ['', REQUEST.slice(0, 30), REQUEST + REQUEST.slice(0, 30)].map((text) => open(port, text)),
    );
    const began = performance.now();
    backend.signal('SIGTERM');
    expect(await backend.exitCode()).toBe(0);
    expect(performance.now() - began).toBeLessThan(STOP_MS);
    for (const socket of silent) socket.destroy();
  });
});

/** A connection on which `text` was sent; resolves when whatever is answered to it has come. */
async function open(port: number, text: string): Promise<net.Socket> {
  const socket = net.connect(port, '127.0.0.1');
  socket.on('error', () => undefined);
  await once(socket, 'connect');
  socket.write(text);
  if (text.startsWith(REQUEST)) await once(socket, 'data');
  return socket;
}
