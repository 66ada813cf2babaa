import { once } from 'node:events';
import net from 'node:net';

import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { answerChallenge, keyOfSecret } from '../../src/protocol/challenge.js';
import { FrameReader } from '../../src/protocol/frames.js';
import { encodeClientMessage, parseServerMessage } from '../../src/protocol/messages.js';
import { until } from '../harness/until.js';
import type { OpenTunnel, Person } from './borectl.js';
import { type LocalService, readAll, startService, visit } from './local-service.js';
import { Platform } from './platform.js';

let platform: Platform;
let person: Person;
let service: LocalService;

beforeAll(async () => {
  platform = await Platform.start('127.0.7.3', { HOUSEKEEPING_INTERVAL_MS: '100' });
  person = await platform.newUser();
  service = await startService((socket) => void socket.end('here'));
});

afterAll(async () => {
  service?.close();
  await platform?.stop();
});

/** What a visitor reads; empty when it is turned away. */
async function answer(client: OpenTunnel): Promise<string> {
  const visitor = await visit(client).catch(() => undefined);
  if (!visitor) return '';
  visitor.end();
  return readAll(visitor).catch(() => '');
}

const works = (client: OpenTunnel) =>
  until(async () => (await answer(client)) === 'here', 'the tunnel works on its old port', 25_000);

/** Carries a tunnel as a stock client would, and resolves when the server has granted it. */
async function takeOver(port: number, secret: string): Promise<net.Socket> {
  const socket = net.connect({ host: platform.address, port: platform.server.controlPort });
  const reader = new FrameReader();
  for (;;) {
    const [chunk]: Buffer[] = await once(socket, 'data');
    reader.push(chunk ?? Buffer.alloc(0));
    for (let frame = reader.next(); frame !== undefined; frame = reader.next()) {
      const message = parseServerMessage(frame);
      if (message.kind === 'hello') return socket;
      if (message.kind !== 'challenge') throw new Error(frame);
      const tag = answerChallenge(keyOfSecret(secret), message.challenge);
      socket.write(encodeClientMessage({ kind: 'authenticate', tag }));
      socket.write(encodeClientMessage({ kind: 'hello', port }));
    }
  }
}

describe('a tunnel that is carried', () => {
  it('comes back on its port when the bore-server is killed and starts again', async () => {
    const client = await person.open(service.port);
    await works(client);
    await platform.server.kill9();
    await client.waitFor('Cannot connect to the bore-server (connection refused); trying again.');
    await platform.restartServer();
    await works(client);
    expect(client.output().match(/Public address/g)).toHaveLength(1);
    expect(client.output()).toContain('Connected again.');
    await client.stop();
    expect((await person.run(['ls'])).stdout).toBe('No open tunnels.\n');
  });

  it('goes on while the backend is away, and comes back after the bore-server although the backend comes last', async () => {
    const client = await person.open(service.port);
    await platform.backend.kill9();
    await works(client);
    await platform.server.kill9();
    await client.waitFor('trying again');
    // a bore-server needs a backend to register, and takes clients before
    const restarted = platform.restartServer();
    await client.waitFor('cannot authorise');
    expect(client.exited()).toBe(false);
    await platform.restartBackend();
    await restarted;
    await works(client);
    await client.stop();
    expect((await person.run(['ls'])).stdout).toBe('No open tunnels.\n');
  });

  it('comes back with a login that had to be refreshed', async () => {
    const client = await person.open(service.port);
    await person.expireAccessToken();
    await platform.server.kill9();
    await client.waitFor('trying again');
    await platform.restartServer();
    await works(client);
    await client.stop();
    expect((await person.run(['ls'])).code).toBe(0);
  });

  it('ends with a sentence when it is deleted or expires', async () => {
    const deleted = await person.open(service.port, '--name', 'deleted');
    expect((await person.run(['rm', 'deleted'])).code).toBe(0);
    expect(await deleted.exitCode()).toBe(1);
    expect(deleted.output()).toMatch(/borectl: The tunnel is closed: somebody has deleted it\.\n$/);

    const expired = await person.open(service.port, '--ttl', '5');
    expect(await expired.exitCode()).toBe(1);
    expect(expired.output()).toMatch(/borectl: The tunnel is closed: its time to live is over\.\n$/);
  });

  it('ends when it was deleted while its server was away', async () => {
    const client = await person.open(service.port, '--name', 'away');
    await platform.server.kill9();
    expect((await person.run(['rm', 'away'])).code).toBe(0);
    expect(await client.exitCode()).toBe(1);
    expect(client.output()).toContain('The tunnel is closed: somebody has deleted it.');
    await platform.restartServer();
  });

  it('ends when it was deleted and the login has ended too', async () => {
    const [leaving, api] = [await platform.newUser(), await platform.apiOf(person)];
    const client = await leaving.open(service.port);
    const [tunnel] = JSON.parse((await leaving.run(['ls', '--json'])).stdout);
    await leaving.run(['logout']);
    // still carried: nobody needs to be logged in for that
    await works(client);
    expect((await api.get(`/api/v1/tunnels/${tunnel.id}`)).status).toBe(404);
    await platform.database.query(`UPDATE tunnels SET expires_at = now() WHERE id = $1`, [tunnel.id]);
    expect(await client.exitCode()).toBe(1);
    expect(client.output()).toContain('The tunnel is closed: its time to live is over.');
  });

  it('is left to another client that takes it over', async () => {
    const client = person.start('open', String(service.port), '--json');
    const [line] = (await client.waitFor('Ctrl-C')).split('\n');
    const { id, port, command } = JSON.parse(line ?? '');
    const other = await takeOver(port, command.split(' ').at(-1));
    expect(await client.exitCode()).toBe(1);
    expect(client.output()).toContain('borectl: Another client has taken this tunnel over and carries it now.\n');
    // neither deleted nor fought for
    expect(JSON.parse((await person.run(['ls', '--json'])).stdout)).toMatchObject([{ id, state: 'active' }]);
    expect(other.closed).toBe(false);
    other.destroy();
    await person.run(['rm', id]);
  });

  it('is not deleted under another login, and says how it is', async () => {
    const client = await person.open(service.port, '--name', 'switched');
    const id = JSON.parse((await person.run(['ls', '--json'])).stdout)[0].id;
    await person.run(['signup', 'switched@example.com']);
    client.signal('SIGINT');
    expect(await client.exitCode()).toBe(1);
    expect(client.output()).toContain(`The tunnel could not be closed; later: borectl rm ${id}. Another account`);
  });
});
