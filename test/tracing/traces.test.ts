import net from 'node:net';

import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { INTERNAL_KEY_HEADER, INTERNAL_PREFIX } from '../../src/protocol/plane-api.js';
import { Api } from '../harness/api.js';
import { SECRETS } from '../harness/backend.js';
import { EventStream } from '../harness/event-stream.js';
import { OwnRedis, redisMissing } from '../harness/own-redis.js';
import { Platform } from '../harness/platform.js';
import { scanLog } from '../harness/secret-scan.js';
import { until } from '../harness/until.js';
import { WireClient } from '../harness/wire-client.js';
import { Collector, type ReceivedSpan } from './collector.js';

/** Kinds of spans, as OTLP numbers them. */
const SERVER = 2;
const CLIENT = 3;
const CONSUMER = 5;

const missing = redisMissing();
let collector: Collector;
let redis: OwnRedis;
let platform: Platform;
let user: Api;

/** Does something and returns the first span of that name which it leaves. */
async function spanOf(name: string, act: () => Promise<unknown>): Promise<ReceivedSpan> {
  const before = new Set(collector.spans);
  await act();
  return collector.span(name, (span) => !before.has(span) && span.name === name && span.kind === SERVER);
}

function namesBelow(spans: readonly ReceivedSpan[], parent: ReceivedSpan | undefined): string[] {
  return spans.filter(({ parentSpanId }) => parentSpanId === parent?.spanId).map(({ name }) => name);
}

describe.skipIf(missing !== undefined)('a platform that is traced', () => {
  beforeAll(async () => {
    collector = await Collector.start();
    redis = await OwnRedis.start();
    platform = await Platform.start({
      address: '127.0.81.1',
      ports: { min: 20_000, max: 20_020 },
      env: { ...redis.env, ...collector.env },
      serverEnv: collector.env,
    });
    user = await platform.newUser();
  });
  afterAll(async () => {
    await platform?.stop();
    await redis?.stop();
    collector?.stop();
  });

  test('opening a tunnel is one trace: the request, its statements and its commands to Redis', async () => {
    const root = await spanOf('POST /api/v1/tunnels', () => platform.open(user));
    const spans = await collector.trace(root.traceId, 'WITH open_tunnel', 'SELECT auth_sessions', 'EVAL');
    const { body } = await user.get('/api/v1/auth/me');
    expect(root).toMatchObject({ service: 'bore-backend', kind: SERVER });
    expect(root.parentSpanId ?? '').toBe('');
    expect(root.attributes).toMatchObject({
      'http.request.method': 'POST',
      'http.route': '/api/v1/tunnels',
      'http.response.status_code': '201',
      'url.scheme': 'http',
      'user.id': body.id,
    });
    expect(namesBelow(spans, root)).toHaveLength(spans.length - 1);
    const statement = spans.find(({ name }) => name === 'WITH open_tunnel');
    expect(statement).toMatchObject({ kind: CLIENT, attributes: { 'db.system.name': 'postgresql' } });
    const command = spans.find(({ name }) => name === 'EVAL');
    expect(command).toMatchObject({
      kind: CLIENT,
      attributes: { 'db.system.name': 'redis', 'db.operation.name': 'EVAL' },
    });
  });

  test('deleting one is one trace over both planes: the call to the bore-server, and its work', async () => {
    const { id } = await platform.open(user);
    const root = await spanOf('DELETE /api/v1/tunnels/:id', () => user.delete(`/api/v1/tunnels/${id}`));
    const spans = await collector.trace(root.traceId, 'POST /tunnels/{id}/close');
    await until(
      () =>
        collector.spans.filter(({ traceId, name }) => traceId === root.traceId && name.endsWith('/close')).length === 2,
      'both ends of the call',
    );
    const [call] = collector.spans.filter(
      (span) => span.traceId === root.traceId && span.parentSpanId === root.spanId && span.name.endsWith('/close'),
    );
    const [work] = collector.spans.filter(
      (span) => span.traceId === root.traceId && span.parentSpanId === call?.spanId,
    );
    expect(spans.length).toBeGreaterThan(3);
    expect(root.attributes).toMatchObject({ 'bore.tunnel.id': id });
    expect(call).toMatchObject({ kind: CLIENT, service: 'bore-backend', attributes: { 'bore.server.id': 's1' } });
    expect(work).toMatchObject({
      kind: SERVER,
      service: 'bore-server',
      attributes: { 'bore.tunnel.id': id, 'http.response.status_code': '200', 'http.route': '/tunnels/{id}/close' },
    });
  });

  test('so is a drain that an operator orders, however it is spelt; without the key there is no span', async () => {
    const operator = new Api(platform.server.adminUrl);
    const key = { [INTERNAL_KEY_HEADER]: SECRETS.INTERNAL_API_KEY };
    expect((await operator.send('POST', '/undrain')).status).toBe(401);
    const drain = await spanOf('POST /drain', async () => {
      expect((await operator.send('POST', '/DRAIN', undefined, key)).body).toEqual({ draining: true });
    });
    expect(drain).toMatchObject({ service: 'bore-server', attributes: { 'http.response.status_code': '200' } });
    expect(collector.spans.filter(({ name }) => name === 'POST /undrain')).toEqual([]);
    expect((await operator.send('POST', '/undrain', undefined, key)).body).toEqual({ draining: false });
    await until(async () => (await platform.open(user).catch(() => undefined))?.id, 'it takes tunnels again');
  });

  test('a client that comes to a bore-server is one trace over both planes', async () => {
    const { token, port } = await platform.open(user);
    const client = await WireClient.connect(platform.server);
    const route = `${INTERNAL_PREFIX}/tunnels/authorize`;
    const answered = await spanOf(`POST ${route}`, () => client.greet(token, { kind: 'hello', port }));
    await collector.trace(answered.traceId, 'UPDATE tunnels');
    const asked = await collector.span(
      'of the bore-server',
      ({ traceId, service }) => traceId === answered.traceId && service === 'bore-server',
    );
    expect(asked).toMatchObject({ kind: CLIENT, name: `POST ${route}`, spanId: answered.parentSpanId });
    client.socket.destroy();
  });

  test('a job of a schedule is a trace of its own, with its statements', async () => {
    const job = await collector.span('a job', ({ attributes }) => attributes['bore.task'] === 'lose-expired-servers');
    const spans = await collector.trace(job.traceId, 'UPDATE servers');
    expect(job).toMatchObject({ name: 'process housekeeping', kind: CONSUMER, service: 'bore-backend' });
    expect(job.parentSpanId ?? '').toBe('');
    expect(namesBelow(spans, job).length).toBe(spans.length - 1);
  });

  test('the line of the log names the trace', async () => {
    const root = await spanOf('GET /api/v1/capacity', () => user.get('/api/v1/capacity'));
    const requestId = root.attributes['bore.request.id'];
    const line = await until(
      () =>
        platform.backend
          .output()
          .split('\n')
          .find((each) => each.includes(`"requestId":"${requestId}"`)),
      'the line of that request',
    );
    expect(JSON.parse(line)).toMatchObject({ traceId: root.traceId, spanId: root.spanId });
  });

  test('the span of a stream ends when it begins, and what the stream then reads is no part of it', async () => {
    const before = collector.spans.length;
    const stream = await EventStream.open(user);
    const root = await collector.span('GET events', ({ name }) => name === 'GET /api/v1/events');
    expect(stream.ended).toBe(false);
    expect(root.attributes).toMatchObject({ 'http.response.status_code': '200' });
    await platform.open(user);
    await until(() => stream.types().includes('tunnel.created'), 'the event of it');
    // whatever belongs to that has been sent when a later request's span is here
    await spanOf('GET /api/v1/capacity', () => user.get('/api/v1/capacity'));
    const late = collector.spans.slice(before).filter(({ parentSpanId }) => parentSpanId === root.spanId);
    expect(late.filter(({ name }) => name.endsWith(' events')).length).toBeLessThanOrEqual(2);
    stream.close();
  });

  test('a request whose caller goes before it is whole leaves a span that says so', async () => {
    const { hostname, port } = new URL(platform.backend.url);
    const head =
      'POST /api/v1/auth/login HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: 50\r\n\r\n';
    const root = await spanOf('POST /api/v1/auth/login', async () => {
      net.connect(Number(port), hostname).end(`${head}{"email":`);
    });
    expect(root.attributes).toMatchObject({ 'error.type': 'aborted' });
  });

  test('probes and scrapes leave no spans; what is not ours has no URL in its name', async () => {
    for (const path of ['/health', '/health/live', '/health/ready', '/metrics']) await user.get(path);
    await spanOf('GET', () => user.get('/no/such/place?with=query'));
    expect(collector.spans.filter(({ name }) => /health|metrics|such/.test(name))).toEqual([]);
  });

  test('no secret, address, query or value of a caller is sent', async () => {
    const email = 'somebody.private@example.com';
    const { body } = await user.post('/api/v1/auth/signup', { email, password: 'correct horse battery' });
    await user.post('/api/v1/auth/login', { email, password: 'correct horse battery staple' });
    await user.post('/api/v1/auth/refresh', { refreshToken: body.refreshToken });
    const marked = user.withToken(body.accessToken);
    const { token } = await platform.open(marked, { name: 'private-name' });
    await spanOf('GET /api/v1/tunnels', () => marked.get('/api/v1/tunnels?limit=7&name=private-name'));
    await spanOf('GET /api/v1/tunnels/:id', () => marked.get('/api/v1/tunnels/private-id'));
    const sent = collector.bodies.join('\n');
    expect(sent).toContain('bore.request.id');
    scanLog(sent);
    for (const text of [email, 'private', token, '127.0.0.1:', 'limit=7', '$1'])
      expect(sent.includes(text), text).toBe(false);
  });
});
