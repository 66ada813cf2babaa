import { afterEach, describe, expect, test } from 'vitest';

import { INTERNAL_KEY_HEADER, INTERNAL_PREFIX } from '../../src/protocol/plane-api.js';
import { Api } from '../harness/api.js';
import { type Backend, SECRETS, startBackend } from '../harness/backend.js';
import { createDatabase, type TestDatabase } from '../harness/database.js';
import { Collector } from './collector.js';

const THEIR_TRACE = '0af7651916cd43dd8448eb211c80319c';
const THEIR_SPAN = 'b7ad6b7169203331';
const SAMPLED = { traceparent: `00-${THEIR_TRACE}-${THEIR_SPAN}-01` };
const NOT_SAMPLED = { traceparent: `00-${THEIR_TRACE}-${THEIR_SPAN}-00` };
const INTERNAL = { [INTERNAL_KEY_HEADER]: SECRETS.INTERNAL_API_KEY };
const AUTHORIZE = `${INTERNAL_PREFIX}/tunnels/authorize`;

let collector: Collector;
let database: TestDatabase;
let backend: Backend;
let api: Api;

async function start(env: NodeJS.ProcessEnv): Promise<void> {
  collector = await Collector.start();
  database = await createDatabase();
  backend = await startBackend({ database, env: { ...collector.env, ...env } });
  api = new Api(backend.url);
}

// programs are started and stopped
describe('the trace that a request says it belongs to', () => {
  afterEach(async () => {
    await backend.stop();
    await database.drop();
    collector.stop();
  });

  test('is gone on with for bore-servers, and only linked to for anybody else', async () => {
    await start({});
    await api.send('GET', '/api/v1/auth/me', undefined, {
      ...SAMPLED,
      baggage: 'their=text',
      tracestate: 'their=state',
    });
    await api.send('GET', '/api/v1/auth/sessions', undefined, NOT_SAMPLED);
    await api.send('POST', AUTHORIZE, '{}', { ...SAMPLED, ...INTERNAL, 'content-type': 'application/json' });
    await api.send('POST', AUTHORIZE, '{}', {
      ...SAMPLED,
      [INTERNAL_KEY_HEADER]: 'a wrong key',
      'content-type': 'application/json',
    });
    const named = (name: string) => collector.span(name, (span) => span.name === name);
    const stranger = await named('GET /api/v1/auth/me');
    expect(stranger.traceId).not.toBe(THEIR_TRACE);
    expect(stranger.parentSpanId ?? '').toBe('');
    expect(stranger.links).toEqual([{ traceId: THEIR_TRACE, spanId: THEIR_SPAN }]);
    // who asks not to be recorded is
    expect((await named('GET /api/v1/auth/sessions')).links).toHaveLength(1);
    const ours = await collector.span(
      'with the key',
      ({ attributes }) => attributes['http.response.status_code'] === '400',
    );
    expect(ours).toMatchObject({ traceId: THEIR_TRACE, parentSpanId: THEIR_SPAN, links: [] });
    const wrong = await collector.span(
      'with a wrong key',
      ({ name, attributes }) => name.endsWith(AUTHORIZE) && attributes['http.response.status_code'] === '401',
    );
    expect(wrong.traceId).not.toBe(THEIR_TRACE);
    expect(collector.bodies.join('')).not.toContain('their=');
  });

  test('turns no recording on, except for bore-servers', async () => {
    await start({ OTEL_TRACES_SAMPLER: 'parentbased_always_off' });
    for (let i = 0; i < 20; i++) await api.send('GET', '/api/v1/auth/me', undefined, SAMPLED);
    await api.send('POST', AUTHORIZE, '{}', { ...NOT_SAMPLED, ...INTERNAL, 'content-type': 'application/json' });
    await api.send('POST', AUTHORIZE, '{}', { ...SAMPLED, ...INTERNAL, 'content-type': 'application/json' });
    await collector.span('of the bore-server', ({ name }) => name === `POST ${AUTHORIZE}`);
    // what was made before it has been sent
    await backend.stop();
    expect(collector.spans.map(({ name, traceId }) => ({ name, traceId }))).toEqual([
      { name: `POST ${AUTHORIZE}`, traceId: THEIR_TRACE },
    ]);
  });

  test('nonsense is none', async () => {
    await start({});
    const nonsense = [
      '',
      '00-',
      `00-${'0'.repeat(32)}-${THEIR_SPAN}-01`,
      `ff-${THEIR_TRACE}-${THEIR_SPAN}-01`,
      'x'.repeat(8_000),
    ];
    for (const traceparent of nonsense) {
      const headers = { traceparent, ...INTERNAL, 'content-type': 'application/json' };
      expect((await api.send('POST', AUTHORIZE, '{}', headers)).status).toBe(400);
    }
    await backend.stop();
    const spans = collector.spans.filter(({ name }) => name === `POST ${AUTHORIZE}`);
    expect(spans).toHaveLength(nonsense.length);
    expect(new Set(spans.map(({ traceId }) => traceId)).size).toBe(nonsense.length);
    expect(spans.every(({ parentSpanId = '', links }) => parentSpanId === '' && links.length === 0)).toBe(true);
  });
});
