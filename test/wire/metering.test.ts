/** Bytes and visitors are counted once (G4), and each connection leaves a record of why it ended. */
import { randomBytes } from 'node:crypto';
import type { Socket } from 'node:net';
import { setTimeout } from 'node:timers/promises';

import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import type { Api } from '../harness/api.js';
import { SECRETS } from '../harness/backend.js';
import { type OpenedTunnel, Platform } from '../harness/platform.js';
import { connect, readAll, readExactly } from '../harness/sockets.js';
import { until } from '../harness/until.js';
import { CarryingClient, hello } from '../harness/wire-client.js';

const ADDRESS = '127.0.2.10';

let platform: Platform;
let user: Api;

beforeAll(async () => {
  platform = await Platform.start({
    address: ADDRESS,
    ports: { min: 10_000, max: 10_099 },
    serverEnv: { BORE_WAITING_SECONDS: '5' },
  });
  user = await platform.newUser();
});

afterAll(() => platform?.stop());

const visit = ({ port }: OpenedTunnel, from?: string) => connect(ADDRESS, port, from);
const usageOf = async ({ id }: OpenedTunnel) => (await user.get(`/api/v1/tunnels/${id}/usage`)).body.total;
const connectionsOf = async ({ id }: OpenedTunnel) =>
  (await user.get(`/api/v1/tunnels/${id}/connections?limit=100`)).body.items;
const quietly = (act: (stream: Socket) => void) => (stream: Socket) => {
  stream.on('error', () => undefined);
  act(stream);
};

describe('usage', () => {
  it(
    'equals what the sockets carried, to the byte, though the backend is killed 20 times',
    { timeout: 900_000 },
    async () => {
      const tunnels = [await platform.open(user), await platform.open(user)];
      const carried = new Map(tunnels.map((tunnel) => [tunnel, { bytesIn: 0, bytesOut: 0, connections: 0 }]));
      for (const tunnel of tunnels) {
        await CarryingClient.start(
          platform.server,
          tunnel.token,
          tunnel.port,
          quietly((stream) => stream.pipe(stream)),
        );
      }
      let busy = true;
      const traffic = tunnels.map(async (tunnel) => {
        const counts = carried.get(tunnel) ?? { bytesIn: 0, bytesOut: 0, connections: 0 };
        while (busy) {
          const bytes = randomBytes(Math.floor(Math.random() * 200_000));
          const visitor = await visit(tunnel);
          visitor.end(bytes);
          const back = await readAll(visitor);
          expect(back.bytes.equals(bytes)).toBe(true);
          counts.bytesIn += bytes.length;
          counts.bytesOut += bytes.length;
          counts.connections += 1;
          // a backend that starts needs the machine too
          await setTimeout(10);
        }
      });
      const kills = async () => {
        for (let i = 0; i < 20; i++) {
          await platform.backend.kill9();
          await platform.startBackendAgain();
          // somewhere in the middle of reports: a moment that is different each time
          await setTimeout(Math.random() * 400);
        }
      };
      await Promise.all([...traffic, kills().finally(() => (busy = false))]);
      let connections = 0;
      for (const [tunnel, counts] of carried) {
        await until(async () => (await usageOf(tunnel)).connections === counts.connections, 'all is reported', 20_000);
        // a report may come between the two ways of the last piece
        await until(async () => {
          const { bytesIn, bytesOut } = await usageOf(tunnel);
          return bytesIn >= counts.bytesIn && bytesOut >= counts.bytesOut;
        }, 'all bytes are reported');
        expect(await usageOf(tunnel)).toEqual(counts);
        const ledger = async () => {
          const [row] = await platform.database.query(
            `SELECT count(*)::int AS connections, sum(bytes_in)::float8 AS "bytesIn", sum(bytes_out)::float8 AS "bytesOut"
             FROM tunnel_connections WHERE tunnel_id = $1`,
            [tunnel.id],
          );
          return row;
        };
        await until(
          async () => Number((await ledger())?.connections) >= counts.connections,
          'all records are reported',
        );
        expect(await ledger()).toEqual(counts);
        connections += counts.connections;
      }
      process.stdout.write(`${connections} connections counted to the byte over 20 kills of the backend\n`);
    },
  );
});

describe('the ledger of connections', () => {
  it('says why each ended', async () => {
    const tunnel = await platform.open(user, { maxConnections: 20, denyCidrs: ['127.0.4.9/32'] });
    let onStream: (stream: Socket) => void = () => undefined;
    const client = await CarryingClient.start(
      platform.server,
      tunnel.token,
      tunnel.port,
      quietly((stream) => onStream(stream)),
    );
    const one = async (behave: (stream: Socket) => void, act: (visitor: Socket) => Promise<unknown>) => {
      onStream = behave;
      const visitor = await visit(tunnel);
      await act(visitor);
    };
    // visitor_closed
    await one(
      (stream) => stream.pipe(stream),
      async (visitor) => {
        visitor.end('hello');
        await readAll(visitor);
      },
    );
    // visitor_reset
    await one(
      (stream) => void stream.write('hello'),
      async (visitor) => {
        await readExactly(visitor, 5);
        visitor.resetAndDestroy();
      },
    );
    // client_closed
    await one(
      (stream) => stream.end('hello'),
      async (visitor) => {
        await readAll(visitor);
        visitor.end();
      },
    );
    // client_reset
    await one(
      (stream) => stream.write('hello', () => stream.resetAndDestroy()),
      (visitor) => readAll(visitor),
    );
    // local_refused
    await one(
      (stream) => stream.end(),
      async (visitor) => {
        await readAll(visitor);
        visitor.end();
      },
    );
    // denied
    await visit(tunnel, '127.0.4.9').then(readAll, () => undefined);
    // revoked
    onStream = (stream) => void stream.write('hello');
    const last = await visit(tunnel);
    await readExactly(last, 5);
    await user.delete(`/api/v1/tunnels/${tunnel.id}`);
    await readAll(last);
    expect(await client.over).toBe('tunnel closed: deleted');

    const items = await until(async () => {
      const found = await connectionsOf(tunnel);
      return found.length === 7 && found;
    }, 'seven records');
    expect(items.map(({ reason }: { reason: string }) => reason).sort()).toEqual([
      'client_closed',
      'client_reset',
      'denied',
      'local_refused',
      'revoked',
      'visitor_closed',
      'visitor_reset',
    ]);
    const first = items.find(({ reason }: { reason: string }) => reason === 'visitor_closed');
    expect(first).toMatchObject({ visitorAddress: '127.0.0.1', bytesIn: 5, bytesOut: 5 });
    expect(first.setupMs).toBeGreaterThan(0);
    expect(Date.parse(first.endedAt)).toBeGreaterThanOrEqual(Date.parse(first.startedAt));
    expect(items.find(({ reason }: { reason: string }) => reason === 'denied').visitorAddress).toBe('127.0.4.9');
  });

  it('knows visitors that nobody fetched, and those of a client that is taken over', async () => {
    const tunnel = await platform.open(user);
    const { client } = await hello(platform.server, tunnel.token, tunnel.port);
    await readAll(await visit(tunnel));
    client.socket.destroy();
    await CarryingClient.start(
      platform.server,
      tunnel.token,
      tunnel.port,
      quietly((stream) => void stream.write('x')),
    );
    const visitor = await visit(tunnel);
    await readExactly(visitor, 1);
    const newer = await CarryingClient.start(platform.server, tunnel.token, tunnel.port, () => undefined);
    expect((await readAll(visitor)).how).toBe('reset');
    newer.stop();
    await until(async () => (await connectionsOf(tunnel)).length === 2, 'two records');
    expect((await connectionsOf(tunnel)).map(({ reason }: { reason: string }) => reason).sort()).toEqual([
      'client_lost',
      'not_fetched',
    ]);
  });
});

describe('settings that are changed while visitors are carried', () => {
  it('reach them at once: who is denied now is cut, and nobody else notices', async () => {
    const tunnel = await platform.open(user);
    await CarryingClient.start(
      platform.server,
      tunnel.token,
      tunnel.port,
      quietly((stream) => stream.pipe(stream)),
    );
    const [kept, cut] = [await visit(tunnel, '127.0.4.1'), await visit(tunnel, '127.0.4.2')];
    for (const visitor of [kept, cut]) {
      visitor.write('x');
      await readExactly(visitor, 1);
    }
    const patch = (body: object) =>
      user.send('PATCH', `/api/v1/tunnels/${tunnel.id}`, JSON.stringify(body), { 'content-type': 'application/json' });
    const ended = readAll(cut);
    expect((await patch({ denyCidrs: ['127.0.4.2/32'] })).status).toBe(200);
    expect((await ended).how).toBe('reset');
    kept.write('still here');
    expect((await readExactly(kept, 10)).toString()).toBe('still here');
    await visit(tunnel, '127.0.4.2').then(readAll, () => undefined);
    expect((await patch({ denyCidrs: [], maxConnections: 1 })).status).toBe(200);
    // one is carried: there is no room for another, and the one that is there stays
    await visit(tunnel, '127.0.4.2').then(readAll, () => undefined);
    kept.write('and here');
    expect((await readExactly(kept, 8)).toString()).toBe('and here');
    expect((await patch({ maxConnections: null })).status).toBe(200);
    const again = await visit(tunnel, '127.0.4.2');
    again.end('welcome');
    expect((await readAll(again)).bytes.toString()).toBe('welcome');
    kept.end();
  });

  it('arrive with the next heartbeat when the bore-server could not be told', async () => {
    const tunnel = await platform.open(user);
    await CarryingClient.start(
      platform.server,
      tunnel.token,
      tunnel.port,
      quietly((stream) => stream.pipe(stream)),
    );
    await platform.database.query(`UPDATE servers SET admin_url = 'http://127.0.0.1:19999'`);
    try {
      const visitor = await visit(tunnel, '127.0.4.2');
      const ended = readAll(visitor);
      await user.send('PATCH', `/api/v1/tunnels/${tunnel.id}`, '{"denyCidrs":["127.0.4.0/24"]}', {
        'content-type': 'application/json',
      });
      expect((await ended).how).toBe('reset');
    } finally {
      await platform.database.query(`UPDATE servers SET admin_url = $1`, [platform.server.adminUrl]);
    }
  });

  it.each<[string, BufferEncoding, RegExp]>([
    ['v1', 'latin1', /^PROXY TCP4 127\.0\.4\.1 127\.0\.2\.10 \d+ \d+\r\nfrom the visitor$/],
    // signature, version and command, family, length, two addresses, two ports, "from the visitor"
    ['v2', 'hex', /^0d0a0d0a000d0a515549540a2111000c7f0004017f00020a.{8}66726f6d207468652076697369746f72$/],
  ])('begin each stream with a PROXY protocol header: %s', async (proxyProtocol, encoding, expected) => {
    const tunnel = await platform.open(user, { proxyProtocol });
    let heard: Promise<{ bytes: Buffer }> | undefined;
    await CarryingClient.start(
      platform.server,
      tunnel.token,
      tunnel.port,
      quietly((stream) => {
        heard = readAll(stream).finally(() => stream.end());
      }),
    );
    const visitor = await visit(tunnel, '127.0.4.1');
    visitor.end('from the visitor');
    await readAll(visitor);
    expect((await heard)?.bytes.toString(encoding)).toMatch(expected);
    // the header is ours, and nobody's usage
    await until(async () => (await usageOf(tunnel)).bytesIn === 16, 'usage without the header');
  });
});

describe('draining', () => {
  it('by order of the internal key: new tunnels are placed elsewhere, what is here goes on', async () => {
    const tunnel = await platform.open(user);
    const client = await CarryingClient.start(
      platform.server,
      tunnel.token,
      tunnel.port,
      quietly((stream) => stream.end('served')),
    );
    const order = (path: string, key = SECRETS.INTERNAL_API_KEY) =>
      fetch(`${platform.server.adminUrl}${path}`, { method: 'POST', headers: { 'x-internal-api-key': key } });
    expect((await order('/drain', 'wrong')).status).toBe(401);
    expect((await fetch(`${platform.server.adminUrl}/ready`)).status).toBe(200);
    expect((await order('/drain')).status).toBe(200);
    expect((await fetch(`${platform.server.adminUrl}/ready`)).status).toBe(503);
    const stateIs = async (wanted: string) =>
      (await platform.database.query(`SELECT FROM servers WHERE state::text = $1`, [wanted])).length === 1;
    await until(() => stateIs('draining'), 'the backend knows');
    expect((await user.post('/api/v1/tunnels', {})).status).toBe(503);
    expect((await readAll(await visit(tunnel))).bytes.toString()).toBe('served');
    client.stop();
    const { answer } = await hello(platform.server, tunnel.token, tunnel.port);
    expect(answer).toEqual({ kind: 'hello', port: tunnel.port });
    expect((await order('/undrain')).status).toBe(200);
    await until(() => stateIs('online'), 'the backend knows that too');
    expect((await user.post('/api/v1/tunnels', {})).status).toBe(201);
  });
});
