/** Whose `X-Forwarded-For` is believed. The tests are the load balancer, at addresses of 127.0.0.0/8. */
import http from 'node:http';
import { once } from 'node:events';
import { text } from 'node:stream/consumers';

import { afterEach, beforeAll, afterAll, describe, expect, it } from 'vitest';

import { type Backend, startBackend } from '../harness/backend.js';
import { createDatabase, type TestDatabase } from '../harness/database.js';

let database: TestDatabase;
let backend: Backend | undefined;

beforeAll(async () => {
  database = await createDatabase();
});

afterAll(() => database?.drop());

afterEach(async () => {
  await backend?.stop();
  backend = undefined;
});

const start = async (trusted?: string) => {
  const env = { RATE_LIMIT_LOGINS_PER_MINUTE: '5', ...(trusted !== undefined && { TRUST_PROXY: trusted }) };
  backend = await startBackend({ database, env });
  return backend;
};

/** The status of a login from a peer, with what it says of whom it asks for. */
async function login(localAddress: string, forwardedFor?: string, route = 'login', body: object = {}): Promise<number> {
  const request = http.request(`${backend?.url}/api/v1/auth/${route}`, {
    method: 'POST',
    localAddress,
    agent: false,
    headers: { 'content-type': 'application/json', ...(forwardedFor && { 'x-forwarded-for': forwardedFor }) },
  });
  request.end(JSON.stringify(body));
  const [response]: http.IncomingMessage[] = await once(request, 'response');
  if (!response) throw new Error('no answer');
  await text(response);
  return response.statusCode ?? 0;
}

async function statusesOf(count: number, call: (i: number) => Promise<number>): Promise<number[]> {
  const statuses: number[] = [];
  for (let i = 0; i < count; i++) statuses.push(await call(i));
  return statuses;
}

const FIVE_AND_TWO_REFUSED = [400, 400, 400, 400, 400, 429, 429];

describe('X-Forwarded-For', () => {
  it.each([
    ['with nobody trusted', undefined],
    ['with somebody else trusted', '192.0.2.1,127.0.0.9,2001:db8::/32'],
  ])('of an untrusted peer resets no limit, however it is rotated: %s', async (_, trusted) => {
    const running = await start(trusted);
    const spoof = (i: number) => (i % 2 ? `203.0.113.${i}` : `203.0.113.${i}, 127.0.0.9`);
    expect(await statusesOf(7, (i) => login('127.0.0.5', spoof(i)))).toEqual(FIVE_AND_TWO_REFUSED);
    expect(await login('127.0.0.6')).toBe(400);
    await running.waitFor('"clientAddress":"127.0.0.5"');
    expect(running.output()).not.toContain('"clientAddress":"203.');
    expect(running.output().match(/X-Forwarded-For is ignored/g)).toHaveLength(1);
  });

  it('of a trusted proxy names the client that is limited, and what the client wrote before it counts for nothing', async () => {
    const running = await start('127.0.0.8/31');
    const through = (client: string, i: number) => login('127.0.0.9', `10.1.1.${i}, ${client}`);
    expect(await statusesOf(7, (i) => through('203.0.113.1', i))).toEqual(FIVE_AND_TWO_REFUSED);
    expect(await through('203.0.113.2', 0)).toBe(400);
    await running.waitFor('"clientAddress":"203.0.113.1"');
    expect(running.output()).not.toContain('"clientAddress":"10.1.1.');
    expect(running.output()).not.toContain('X-Forwarded-For is ignored');
  });

  it('through two trusted proxies names the client before both', async () => {
    await start('127.0.0.8/31, 192.0.2.0/24');
    const through = (client: string) => login('127.0.0.8', `${client}, 192.0.2.7`);
    expect(await statusesOf(7, () => through('203.0.113.1'))).toEqual(FIVE_AND_TWO_REFUSED);
    expect(await through('203.0.113.2')).toBe(400);
  });

  it('that holds no address is one caller, not a new one each time', async () => {
    await start('127.0.0.9');
    expect(await statusesOf(7, (i) => login('127.0.0.9', `unknown-${i}`))).toEqual(FIVE_AND_TWO_REFUSED);
  });

  it('that holds no address is nobody’s address in the lists of logins and in the audit log', async () => {
    await start('127.0.0.9');
    const account = { email: 'forwarded@example.com', password: 'correct horse battery' };
    const asked: [forwardedFor: string, stored: string | null][] = [
      ['<script>alert(1)</script>', null],
      ['unknown', null],
      ['203.0.113.7:4711', null],
      [`fe80::1%${'x'.repeat(2_000)}`, 'fe80::1'],
      ['203.0.113.7', '203.0.113.7'],
      ['2001:db8::7', '2001:db8::7'],
    ];
    for (const [i, [forwardedFor]] of asked.entries()) {
      expect(await login('127.0.0.9', forwardedFor, i === 0 ? 'signup' : 'login', account)).toBe(i === 0 ? 201 : 200);
    }
    const expected = asked.map(([, stored]) => stored);
    const sessions = await database.query('SELECT client_address FROM auth_sessions ORDER BY id');
    expect(sessions.map((row) => row['client_address'])).toEqual(expected);
    const entries = await database.query(
      `SELECT client_address FROM audit_log WHERE action = 'login.succeeded' ORDER BY id`,
    );
    expect(entries.map((row) => row['client_address'])).toEqual(expected);
  });

  it('with IPv6 counts by the /64, and a mapped IPv4 address as what it is', async () => {
    await start('127.0.0.9');
    const through = (client: string) => login('127.0.0.9', client);
    expect(await statusesOf(7, (i) => through(`2001:db8:0:1:${i}::1`))).toEqual(FIVE_AND_TWO_REFUSED);
    expect(await through('2001:db8:0:2::1')).toBe(400);
    const mapped = (i: number) => (i % 2 ? '::ffff:203.0.113.1' : '203.0.113.1');
    expect(await statusesOf(7, (i) => through(mapped(i)))).toEqual(FIVE_AND_TWO_REFUSED);
    expect(await through('::ffff:203.0.113.2')).toBe(400);
  });
});

describe('TRUST_PROXY', () => {
  it.each([
    'loadbalancer.example.com',
    '10.0.0.0/33',
    '1',
    'true',
    '10.0.0.1-10.0.0.9',
    '0.0.0.0/0',
    '::/0',
    '::1]x/64',
  ])('is refused at start when it is %s', async (value) => {
    const failed = await startBackend({ database, env: { TRUST_PROXY: value }, expectFailure: true });
    expect(await failed.exitCode()).toBe(1);
    expect(failed.output()).toContain('TRUST_PROXY');
  });
});
