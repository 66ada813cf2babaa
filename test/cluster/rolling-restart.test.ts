/** Backends are restarted one after another under load, behind the nginx that we ship, and nobody notices. */
import { randomUUID } from 'node:crypto';
import http from 'node:http';

import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { z } from 'zod';

import { EventStream } from '../harness/event-stream.js';
import { clusterUnavailable, OwnCluster } from '../harness/own-cluster.js';
import { until } from '../harness/until.js';

/** Three restarts, each with a drain of 6 s and a start, on two cores that other suites use too. */
const ROLLING_MS = 150_000;
const PASSWORD = 'correct horse battery';
/** Loops of each kind, each with one request at a time: a steady load that leaves room for the other suites. */
const LOOPS = 3;

const reason = await clusterUnavailable();
const Opened = z.object({ id: z.string() });

interface Answered {
  readonly status: number;
  readonly text: string;
}

describe('a rolling restart', () => {
  let own: OwnCluster;
  let address: string;
  /** One connection for each loop, kept as long as nginx keeps it. */
  const agent = new http.Agent({ keepAlive: true });

  beforeEach(({ skip }) => {
    if (reason !== undefined) skip(reason);
  });

  beforeAll(async () => {
    if (reason !== undefined) return;
    own = await OwnCluster.start({ address: '127.47.0.1' });
    address = own.cluster.url;
  }, ROLLING_MS);

  afterAll(async () => {
    agent.destroy();
    await own?.stop();
  }, ROLLING_MS);

  function send(method: string, path: string, headers: Record<string, string>, body?: string): Promise<Answered> {
    return new Promise((resolve, reject) => {
      const type = body === undefined ? {} : { 'content-type': 'application/json' };
      const request = http.request(
        `${address}${path}`,
        { agent, method, headers: { ...headers, ...type } },
        (answer) => {
          let text = '';
          answer.setEncoding('utf8').on('data', (chunk: string) => (text += chunk));
          answer.on('end', () => resolve({ status: answer.statusCode ?? 0, text })).on('error', reject);
        },
      );
      request.on('error', reject).end(body);
    });
  }

  it(
    'loses no request: reads, opened and deleted tunnels, with and without Idempotency-Key',
    async () => {
      const { body } = await own.api.post('/api/v1/auth/signup', { email: 'a@example.com', password: PASSWORD });
      const authorization = `Bearer ${body.accessToken}`;
      const failures: string[] = [];
      const count = { read: 0, opened: 0, deleted: 0 };
      let stopped = false;

      const expectStatus = async (expected: number, ...request: Parameters<typeof send>): Promise<Answered> => {
        const answer = await send(...request).catch((error: Error) => ({ status: 0, text: error.message }));
        if (answer.status !== expected) failures.push(`${request[0]} ${request[1]}: ${answer.status} ${answer.text}`);
        return answer;
      };
      const read = async () => {
        await expectStatus(200, 'GET', '/api/v1/tunnels', { authorization });
        count.read++;
      };
      const openAndDelete = (withKey: boolean) => async () => {
        const key: Record<string, string> = withKey ? { 'idempotency-key': randomUUID() } : {};
        const { status, text } = await expectStatus(201, 'POST', '/api/v1/tunnels', { authorization, ...key }, '{}');
        if (status !== 201) return;
        count.opened++;
        const { id } = Opened.parse(JSON.parse(text));
        await expectStatus(204, 'DELETE', `/api/v1/tunnels/${id}`, { authorization });
        count.deleted++;
      };
      const loop = async (work: () => Promise<void>) => {
        while (!stopped) await work();
      };
      const load = [read, openAndDelete(false), openAndDelete(true)].flatMap((work) =>
        Array.from({ length: LOOPS }, () => loop(work)),
      );

      // a listener that does what a browser does: it comes back behind its last event, but sooner
      const heard: string[] = [];
      let streams = 0;
      let stream: EventStream | undefined;
      const listen = async () => {
        for (let last = '0'; !stopped; last = stream.lastEventId) {
          stream = await EventStream.open(own.api.withToken(body.accessToken), '/api/v1/events', last);
          if (stream.status !== 200) failures.push(`GET /api/v1/events: ${stream.status}`);
          streams++;
          const { response, events } = stream;
          await new Promise((resolve) => response.once('close', resolve));
          heard.push(...events.filter(({ event }) => event !== 'end').map(({ id, event }) => `${id} ${event}`));
        }
      };
      const listening = listen();

      const during: number[] = [];
      try {
        for (const backend of own.cluster.backends) {
          const before = count.read;
          await backend.restart();
          during.push(count.read - before);
          const after = count.read;
          await until(() => count.read > after + 100, 'requests go on');
        }
      } finally {
        stopped = true;
        await Promise.all(load);
      }
      process.stdout.write(`3 backends restarted: ${JSON.stringify(count)}, reads meanwhile ${during.join(', ')}\n`);
      await until(
        () => heard.length + (stream?.events.length ?? 0) >= count.opened * 2,
        'all events are heard',
      ).finally(() => stream?.close());
      await listening;
      expect(failures, (await own.unansweredByBackends()).join('\n')).toEqual([]);
      for (const reads of during) expect(reads).toBeGreaterThan(100);
      // what was answered was done, once
      const left = await own.api.withToken(body.accessToken).get('/api/v1/tunnels');
      expect(left.body.items).toEqual([]);
      expect(count.opened).toBe(count.deleted);
      // nothing that happened was left out for a listener, or told twice; each stream ended once at least
      expect(streams).toBeGreaterThan(1);
      expect(new Set(heard).size).toBe(heard.length);
      for (const type of ['tunnel.created', 'tunnel.closed']) {
        expect(heard.filter((each) => each.endsWith(` ${type}`))).toHaveLength(count.opened);
      }
      // the queue, Redis and the database were let go of in order: nobody missed one
      expect(await own.loggedErrorsOfStops(own.cluster.backends.length)).toEqual([]);
    },
    ROLLING_MS,
  );
});
