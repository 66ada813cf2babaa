import { randomBytes } from 'node:crypto';
import { mkdir, mkdtemp, readFile, stat, writeFile } from 'node:fs/promises';
import path from 'node:path';

import { pino } from 'pino';
import { describe, expect, inject, it } from 'vitest';

import { closing } from '../../src/bore-server/fences.js';
import { Grants } from '../../src/bore-server/grants.js';
import { StateFile } from '../../src/bore-server/state-file.js';
import { UsageBook } from '../../src/bore-server/usage-book.js';
import { answerChallenge, keyOfSecret, randomUuid } from '../../src/protocol/challenge.js';
import type { Grant } from '../../src/protocol/plane-api.js';

const TTL_MS = 900_000;
const settings = {
  version: 1,
  maxConnections: null,
  bandwidthMbps: null,
  allowCidrs: [],
  denyCidrs: [],
  proxyProtocol: null,
};

function grantOf(secret: string, port: number, more: Partial<Grant> = {}): Grant {
  return {
    tunnelId: randomUuid(),
    sessionId: randomUuid(),
    epoch: 3,
    port,
    key: keyOfSecret(secret).toString('hex'),
    keyVersion: 0,
    settings,
    expiresAt: null,
    ...more,
  };
}

function wish(secret: string, port: number) {
  const challenge = randomUuid();
  return { port, challenge, tag: answerChallenge(keyOfSecret(secret), challenge) };
}

describe('grants without the control plane', () => {
  it('let a known client back, at its port or by its secret alone, in a new session each time', () => {
    const grants = new Grants([], TTL_MS, () => undefined);
    const grant = grantOf('tk_a', 10_000);
    grants.put(grant, 0);
    grants.put(grantOf('tk_b', 10_001), 0);
    const first = grants.authorize(wish('tk_a', 10_000), randomUuid(), 1);
    const second = grants.authorize(wish('tk_a', 0), randomUuid(), 2);
    expect(first).toMatchObject({ tunnelId: grant.tunnelId, epoch: 4 });
    expect(second).toMatchObject({ tunnelId: grant.tunnelId, epoch: 5 });
    expect(new Set([grant.sessionId, first?.sessionId, second?.sessionId]).size).toBe(3);
    expect(grants.authorize(wish('tk_a', 10_001), randomUuid(), 3)).toBeUndefined();
    expect(grants.authorize(wish('tk_c', 0), randomUuid(), 3)).toBeUndefined();
  });

  it('are good for their time since the control plane last agreed, and not beyond the tunnel’s own', () => {
    const grants = new Grants([], TTL_MS, () => undefined);
    const grant = grantOf('tk_a', 10_000);
    grants.put(grant, 0);
    grants.confirm(new Set([grant.tunnelId]), 500_000);
    expect(grants.authorize(wish('tk_a', 0), randomUuid(), TTL_MS + 499_999)).toBeDefined();
    expect(grants.authorize(wish('tk_a', 0), randomUuid(), TTL_MS + 500_001)).toBeUndefined();
    grants.put(grantOf('tk_b', 10_001, { expiresAt: '1970-01-01T00:01:00.000Z' }), 0);
    expect(grants.authorize(wish('tk_b', 0), randomUuid(), 59_999)).toBeDefined();
    expect(grants.authorize(wish('tk_b', 0), randomUuid(), 60_001)).toBeUndefined();
  });

  it('begin the session that was asked for, and are gone when the control plane refuses who answers to them', () => {
    const grants = new Grants([], TTL_MS, () => undefined);
    grants.put(grantOf('tk_a', 10_000), 0);
    const sessionId = randomUuid();
    expect(grants.authorize(wish('tk_a', 0), sessionId, 1)?.sessionId).toBe(sessionId);
    grants.forgetAnswering(wish('tk_b', 10_000), 1);
    expect(grants.kept(1)).toHaveLength(1);
    grants.forgetAnswering(wish('tk_a', 0), 1);
    expect(grants.kept(1)).toHaveLength(0);
  });

  it('are gone when their tunnel is closed, or its port given to another', () => {
    const grants = new Grants([], TTL_MS, () => undefined);
    const grant = grantOf('tk_a', 10_000);
    grants.put(grant, 0);
    grants.fence(closing(grant.tunnelId, 'deleted'));
    expect(grants.authorize(wish('tk_a', 0), randomUuid(), 1)).toBeUndefined();
    grants.put(grant, 0);
    grants.put(grantOf('tk_b', 10_000), 0);
    expect(grants.authorize(wish('tk_a', 0), randomUuid(), 1)).toBeUndefined();
    expect(grants.kept(1)).toHaveLength(1);
  });
});

describe('the state file', () => {
  const key = randomBytes(32).toString('hex');
  const silent = pino({ level: 'silent' });

  async function open(folder: string, apiKeys: string[], grants: Grants, book: UsageBook) {
    let failures = 0;
    const file = new StateFile(
      folder,
      's1',
      apiKeys,
      silent,
      () => ({ grants: grants.kept(), book: book.state() }),
      () => failures++,
    );
    return { file, failures: () => failures };
  }

  it('is sealed, for its owner only, and read back; with a rotated key as well, with another not', async () => {
    const folder = await mkdtemp(path.join(inject('scratch'), 'state-'));
    const grants = new Grants([], TTL_MS, () => undefined);
    const book = new UsageBook(undefined, () => undefined);
    const grant = grantOf('tk_a', 10_000);
    grants.put(grant);
    book.countBytes(grant.tunnelId, 'in', 5);
    const { file } = await open(folder, [key], grants, book);
    await file.save();
    const name = path.join(folder, 'bore-server.s1.state');
    expect((await stat(name)).mode & 0o777).toBe(0o600);
    const bytes = await readFile(name);
    expect(bytes.includes(grant.key)).toBe(false);
    expect(bytes.includes(grant.tunnelId)).toBe(false);

    const rotated = await open(folder, [randomBytes(32).toString('hex'), key], grants, book);
    expect(await rotated.file.load()).toMatchObject({ grants: [{ grant }], book: { usage: [{ bytesIn: 5 }] } });
    const other = await open(folder, [randomBytes(32).toString('hex')], grants, book);
    expect(await other.file.load()).toBeUndefined();
    bytes[bytes.length - 1] = (bytes.at(-1) ?? 0) ^ 1;
    await writeFile(name, bytes);
    expect(await file.load()).toBeUndefined();
    await writeFile(name, '');
    expect(await file.load()).toBeUndefined();
  });

  it('belongs to one process at a time, and a lock that was left by a killed one is no lock', async () => {
    const folder = await mkdtemp(path.join(inject('scratch'), 'state-'));
    const grants = new Grants([], TTL_MS, () => undefined);
    const book = new UsageBook(undefined, () => undefined);
    const first = await open(folder, [key], grants, book);
    const second = await open(folder, [key], grants, book);
    expect(await first.file.lock()).toBe(true);
    expect(await second.file.lock()).toBe(false);
    // kill -9 leaves the socket's file behind: another process of its own stands for that in test/wire/fail-static
  });

  it('that can be written no more is removed: what it says may be reported from now on', async () => {
    const folder = await mkdtemp(path.join(inject('scratch'), 'state-'));
    const book = new UsageBook(undefined, () => undefined);
    const { file, failures } = await open(folder, [key], new Grants([], TTL_MS, () => undefined), book);
    await file.save();
    expect(await file.load()).toBeDefined();
    await mkdir(path.join(folder, 'bore-server.s1.state.next'));
    await file.save();
    expect(failures()).toBe(1);
    expect(await file.load()).toBeUndefined();
  });

  it('that cannot be written is counted, and nothing else happens', async () => {
    const folder = await mkdtemp(path.join(inject('scratch'), 'state-'));
    const blocked = path.join(folder, 'file');
    await writeFile(blocked, '');
    const { file, failures } = await open(
      path.join(blocked, 'below'),
      [key],
      new Grants([], TTL_MS, () => undefined),
      new UsageBook(undefined, () => undefined),
    );
    await file.save();
    await file.save();
    expect(failures()).toBe(2);
  });
});
