/** Random histories of a real bore-server behind a network that loses answers: G3 and G4 hold in all of them. */
import { randomBytes } from 'node:crypto';
import type { Socket } from 'node:net';

import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import type { Api } from '../harness/api.js';
import { startBoreServer } from '../harness/bore-server.js';
import { FaultProxy } from '../harness/fault-proxy.js';
import { type OpenedTunnel, Platform } from '../harness/platform.js';
import { connect, readAll } from '../harness/sockets.js';
import { until } from '../harness/until.js';
import { CarryingClient, WireClient } from '../harness/wire-client.js';

const ADDRESS = '127.0.2.13';
const PORTS = { min: 10_000, max: 10_099 };

let platform: Platform;
let user: Api;
let plane: FaultProxy;

beforeAll(async () => {
  platform = await Platform.start({ address: ADDRESS, ports: PORTS });
  user = await platform.newUser();
  plane = await FaultProxy.start({ host: '127.0.0.1', port: Number(new URL(platform.backend.url).port) });
  await restart();
});

afterAll(async () => {
  await plane?.close();
  await platform?.stop();
});

/** Another process of the bore-server, on the state that the one before has left. */
async function restart(): Promise<void> {
  await platform.server.stop();
  platform.server = await startBoreServer({
    backend: platform.backend,
    address: ADDRESS,
    ports: PORTS,
    dataDir: platform.dataDir,
    env: { BORE_BACKEND_URL: `http://127.0.0.1:${plane.port}` },
  });
}

const echo = (stream: Socket): void => {
  stream.on('error', () => undefined);
  stream.pipe(stream);
};

/** One step of a history; `which` picks among two tunnels. */
const step = fc.oneof(
  { weight: 4, arbitrary: fc.record({ do: fc.constant('visit' as const), which: fc.nat(1), bytes: fc.nat(50_000) }) },
  {
    weight: 3,
    arbitrary: fc.record({ do: fc.constantFrom('connect' as const, 'disconnect' as const), which: fc.nat(1) }),
  },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('lose answers' as const) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('restart' as const) }) },
);

/** What a tunnel should be like. */
interface Model {
  readonly tunnel: OpenedTunnel;
  client: CarryingClient | undefined;
  bytes: number;
  visitors: number;
}

describe('random histories', () => {
  it(
    'count every byte and visitor once, and leave each tunnel as its last client did',
    { timeout: 180_000 },
    async () => {
      await fc.assert(
        fc.asyncProperty(fc.array(step, { minLength: 4, maxLength: 12 }), async (steps) => {
          const models: Model[] = [];
          for (let i = 0; i < 2; i++) {
            models.push({ tunnel: await platform.open(user), client: undefined, bytes: 0, visitors: 0 });
          }
          for (const action of steps) {
            if (action.do === 'lose answers') {
              const before = plane.ended;
              plane.set({ limit: { bytes: 20, how: 'reset' } }, 'toClient');
              await until(() => plane.ended > before, 'an answer is lost');
              plane.heal();
            } else if (action.do === 'restart') {
              await restart();
              for (const model of models) model.client = undefined;
            } else {
              const model = models[action.which];
              if (!model) continue;
              const { tunnel } = model;
              if (action.do === 'connect') {
                // a takeover, where one is connected already
                const connected = await until(
                  () => CarryingClient.start(platform.server, tunnel.token, tunnel.port, echo).catch(() => undefined),
                  'it is authorised',
                );
                if (model.client) expect(await model.client.over).toMatch(/^taken over|ECONNRESET|reset|finished/);
                model.client = connected;
              } else if (action.do === 'disconnect') {
                model.client?.stop();
                model.client = undefined;
              } else if ('bytes' in action && model.client) {
                const sent = randomBytes(action.bytes);
                const visitor = await connect(ADDRESS, tunnel.port);
                visitor.end(sent);
                expect((await readAll(visitor)).bytes.equals(sent)).toBe(true);
                model.bytes += sent.length;
                model.visitors += 1;
              }
            }
          }
          for (const { tunnel, client, bytes, visitors } of models) {
            const usage = async () => (await user.get(`/api/v1/tunnels/${tunnel.id}/usage`)).body.total;
            const counted = async () => {
              const { bytesIn, bytesOut, connections } = await usage();
              return Math.min(bytesIn, bytesOut) >= bytes && connections >= visitors;
            };
            await until(counted, 'all of it is in the books', 20_000);
            expect(await usage()).toEqual({ bytesIn: bytes, bytesOut: bytes, connections: visitors });
            const expected = client ? ['active'] : ['offline', 'pending'];
            await until(
              async () => expected.includes(await platform.stateOf(tunnel)),
              `the tunnel is ${expected[0]}`,
              20_000,
            );
            client?.stop();
            await user.delete(`/api/v1/tunnels/${tunnel.id}`);
          }
        }),
        { numRuns: 12 },
      );
    },
  );
});

describe('broken conversations under load', () => {
  it('are ended one by one; traffic goes on, and nothing is left behind', { timeout: 120_000 }, async () => {
    const tunnel = await platform.open(user);
    const client = await CarryingClient.start(platform.server, tunnel.token, tunnel.port, echo);
    const broken: Buffer[] = [
      Buffer.from(`${'x'.repeat(257)}\0`),
      Buffer.alloc(100_000, 'no end '),
      Buffer.from([0xff, 0xfe, 0x00]),
      Buffer.from('{"Hello":\0'),
      Buffer.from('{"Authenticate":"zz"}\0{"Hello":0}\0'),
      Buffer.from(`{"Authenticate":"${'0'.repeat(64)}"}\0{"Accept":"00000000-0000-0000-0000-000000000000"}\0`),
      Buffer.from(`{"Authenticate":"${'0'.repeat(64)}"}\0{"Authenticate":"${'0'.repeat(64)}"}\0`),
      Buffer.from('\0\0\0'),
      randomBytes(300),
      Buffer.from('{"Authent'),
    ];
    let busy = true;
    let visits = 0;
    const traffic = (async () => {
      while (busy) {
        const sent = randomBytes(10_000);
        const visitor = await connect(ADDRESS, tunnel.port);
        visitor.end(sent);
        expect((await readAll(visitor)).bytes.equals(sent)).toBe(true);
        visits++;
      }
    })();
    const storm = async (rounds: number): Promise<void> => {
      for (let i = 0; i < rounds; i++) {
        const wires = await Promise.all(
          broken.flatMap((bytes, n) =>
            [1, 2, 3].map(async (source) => {
              const wire = await WireClient.connect(platform.server, `127.0.4.${10 * n + source}`).catch(
                () => undefined,
              );
              wire?.send(bytes);
              return wire;
            }),
          ),
        );
        await Promise.all(wires.flatMap((wire) => (wire ? [wire.closed()] : [])));
      }
    };
    await storm(1);
    const descriptors = await platform.metric('process_open_fds');
    await storm(10);
    busy = false;
    await traffic;
    expect(visits).toBeGreaterThan(20);
    await until(
      async () => (await platform.metric('process_open_fds')) <= descriptors + 2,
      'descriptors are given back',
    );
    expect(platform.server.exited()).toBe(false);
    client.stop();
  });
});
