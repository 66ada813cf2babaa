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
  const env = trusted === undefined ? {} : { TRUST_PROXY: trusted };
  backend = await startBackend({ database, env });
  return backend;
};

/** The status of a login from a peer, with what it says of whom it asks for. */
async function login(localAddress: string, forwardedFor?: string): Promise<number> {
  const request = http.request(`${backend?.url}/api/v1/auth/login`, {
    method: 'POST',
    localAddress,
    agent: false,
    headers: { 'content-type': 'application/json', ...(forwardedFor && { 'x-forwarded-for': forwardedFor }) },
  });
  request.end('{}');
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

describe('X-Forwarded-For', () => {
  it('of an untrusted peer changes nothing, and is told of once', async () => {
    const running = await start('192.0.2.1,2001:db8::/32');
    expect(await statusesOf(2, (i) => login('127.0.0.5', `203.0.113.${i}`))).toEqual([400, 400]);
    await running.waitFor('"clientAddress":"127.0.0.5"');
    expect(running.output()).not.toContain('"clientAddress":"203.');
    expect(running.output().match(/X-Forwarded-For is ignored/g)).toHaveLength(1);
  });

  it('of a trusted proxy names the client, and what the client wrote before it counts for nothing', async () => {
    const running = await start('127.0.0.8/31');
    expect(await login('127.0.0.9', '10.1.1.1, 203.0.113.1')).toBe(400);
    await running.waitFor('"clientAddress":"203.0.113.1"');
    expect(running.output()).not.toContain('X-Forwarded-For is ignored');
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
