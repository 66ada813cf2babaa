/** What the programs log of requests, and how one request is followed from program to program. */
import { randomUUID } from 'node:crypto';

import { createPostgresBackend, Queue, setDefaultBackendFactory } from 'bullmq';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { z } from 'zod';

import { Api } from '../harness/api.js';
import { Platform } from '../harness/platform.js';
import type { RunningProcess } from '../harness/running-process.js';
import { until } from '../harness/until.js';
import { hello } from '../harness/wire-client.js';

const PASSWORD = 'correct horse battery';
const ADDRESS = '127.0.61.1';

const Line = z.looseObject({
  level: z.string(),
  msg: z.string(),
  service: z.string(),
  requestId: z.string().optional(),
});
type Line = z.infer<typeof Line>;

let platform: Platform;
let user: Api;
let admin: Api;

beforeAll(async () => {
  platform = await Platform.start({
    address: ADDRESS,
    ports: { min: 21_000, max: 21_099 },
    env: { ADMIN_EMAIL: 'admin@example.com', ADMIN_PASSWORD: PASSWORD },
  });
  user = await platform.newUser();
  const { body } = await new Api(platform.backend.url).post('/api/v1/auth/login', {
    email: 'admin@example.com',
    password: PASSWORD,
  });
  admin = new Api(platform.backend.url).withToken(body.accessToken);
});

afterAll(() => platform?.stop());

const linesOf = (program: RunningProcess): Line[] =>
  program
    .output()
    .split('\n')
    // the last may not be there to its end yet
    .slice(0, -1)
    .map((line) => Line.parse(JSON.parse(line)));

/** The lines of a program about one request, once there is one that `isLast`. */
const about = (program: RunningProcess, requestId: string, isLast: (line: Line) => boolean): Promise<Line[]> =>
  until(() => {
    const lines = linesOf(program).filter((line) => line.requestId === requestId);
    return lines.some(isLast) ? lines : undefined;
  }, `a line about ${requestId}`);

const isRequest = ({ msg }: Line) => msg === 'request';

describe('the line of a request', () => {
  it('says what was asked by which route, by whom, from where, and what came of it', async () => {
    const me = (await user.get('/api/v1/auth/me')).body;
    const tunnel = await platform.open(user, { name: 'logged' });
    const answer = await user.get(`/api/v1/tunnels/${tunnel.id}?token=tk_in_a_query_0123456789`);
    const requestId = String(answer.headers.get('x-request-id'));
    const [line, ...more] = await about(platform.backend, requestId, isRequest);
    expect(more).toEqual([]);
    expect(line).toEqual({
      level: 'info',
      time: expect.stringMatching(/^\d{4}-\d{2}-\d{2}T[\d:.]+Z$/),
      service: 'bore-backend',
      pid: platform.backend.pid,
      requestId,
      method: 'GET',
      route: '/api/v1/tunnels/:id',
      status: 200,
      durationMs: expect.any(Number),
      bytesOut: Buffer.byteLength(answer.text),
      userId: me.id,
      clientAddress: '127.0.0.1',
      msg: 'request',
    });
    expect(platform.backend.output()).not.toContain('in_a_query');
  });

  it('names no route where there is none, and no user where nobody has logged in', async () => {
    const nobody = new Api(platform.backend.url);
    const { headers } = await nobody.get('/api/v1/nowhere/secret-of-a-path');
    const requestId = String(headers.get('x-request-id'));
    const [line] = await about(platform.backend, requestId, isRequest);
    expect(line).toMatchObject({ status: 404, method: 'GET' });
    expect(Object.keys(line ?? {})).not.toContain('userId');
    expect(Object.keys(line ?? {})).not.toContain('route');
    expect(platform.backend.output()).not.toContain('secret-of-a-path');
  });

  it('is not there for what a load balancer or a scraper asks, unless debug is on', async () => {
    const { headers } = await new Api(platform.backend.url).get('/health/live');
    await new Api(platform.backend.url).get('/metrics');
    const last = String((await user.get('/api/v1/auth/me')).headers.get('x-request-id'));
    await about(platform.backend, last, isRequest);
    const lines = linesOf(platform.backend);
    expect(lines.some(({ requestId }) => requestId === headers.get('x-request-id'))).toBe(false);
    expect(lines.some((line) => line['route'] === '/metrics')).toBe(false);
  });

  it('has nothing dropped, in either program, by now', () => {
    const lines = [...linesOf(platform.backend), ...linesOf(platform.server)];
    expect(lines.filter((line) => 'dropped' in line)).toEqual([]);
  });
});

describe('the id of a request', () => {
  it('is its caller’s where that is harmless, and goes with the order to the bore-server', async () => {
    const tunnel = await platform.open(user);
    const requestId = `followed-${randomUUID()}`.slice(0, 64);
    const { headers } = await user.send('DELETE', `/api/v1/tunnels/${tunnel.id}`, undefined, {
      'x-request-id': requestId,
    });
    expect(headers.get('x-request-id')).toBe(requestId);
    const [line] = await about(platform.server, requestId, ({ msg }) => msg === 'order');
    expect(line).toMatchObject({ service: 'bore-server', level: 'info', order: 'close', tunnelId: tunnel.id });
    await about(platform.backend, requestId, isRequest);
  });

  it('comes from the bore-server where that asks, and both log it', async () => {
    const tunnel = await platform.open(user);
    const { client } = await hello(platform.server, tunnel.token, tunnel.port);
    const asked = await until(
      () => linesOf(platform.server).findLast((line) => line['call'] === 'authorize'),
      'the bore-server has asked',
    );
    expect(asked).toMatchObject({ msg: 'control plane asked', status: 200 });
    const [line] = await about(platform.backend, String(asked.requestId), isRequest);
    expect(line).toMatchObject({ route: '/api/v1/internal/tunnels/authorize', status: 200 });
    client.socket.destroy();
  });

  it('is in the lines of a job: of the request that it comes from, or one of its own', async () => {
    const { host, port, database, user: name, password } = platform.database.address;
    setDefaultBackendFactory(createPostgresBackend);
    const queue = new Queue('housekeeping', { connection: { host, port, database, user: name, password } });
    await admin.send('PUT', '/api/v1/admin/log-level', '{"level":"debug"}', { 'content-type': 'application/json' });
    const requestId = `enqueued-${randomUUID()}`;
    const job = await queue.add('close-due-tunnels', { requestId });
    const [line] = await about(platform.backend, requestId, ({ msg }) => msg === 'job done');
    expect(line).toMatchObject({ jobId: job.id, task: 'close-due-tunnels', durationMs: expect.any(Number) });
    // an id that is none of ours is not believed
    await queue.add('close-due-tunnels', { requestId: 'x\n{"level":"fatal"}' });
    const runs = await until(() => {
      const done = linesOf(platform.backend).filter(
        ({ msg, task }) => msg === 'job done' && task === 'close-due-tunnels',
      );
      return done.length >= 4 ? done : undefined;
    }, 'some runs');
    for (const run of runs) expect(run.requestId).toMatch(/^[\w-]{8,64}$/);
    expect(new Set(runs.map((run) => run['jobId'])).size).toBe(runs.length);
    expect(new Set(runs.map((run) => run.requestId)).size).toBe(runs.length);
    await queue.close();
  });
});
