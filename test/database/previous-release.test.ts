/** The release before this one works on this one's schema, beside it: what an update without downtime, and the way back, rest on. */
import { readdir } from 'node:fs/promises';
import path from 'node:path';

import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { z } from 'zod';

import { PROJECT_DIR } from '../../src/local/state-folders.js';
import { Api } from '../harness/api.js';
import { type Backend, startBackend } from '../harness/backend.js';
import { type BoreServerProcess, startBoreServer } from '../harness/bore-server.js';
import { createDatabase, type TestDatabase } from '../harness/database.js';
import { BUILD_TIMEOUT_MS, buildRelease, migrationsOf, previousRelease } from '../harness/previous-release.js';
import { connect, readAll } from '../harness/sockets.js';
import { until } from '../harness/until.js';
import { CarryingClient } from '../harness/wire-client.js';

const PASSWORD = 'correct horse battery';
const ENV = {
  PLAN_FREE_TUNNELS: '50',
  RESERVED_CAPACITY_PERCENT: '0',
  HEARTBEAT_INTERVAL_MS: '200',
  HOUSEKEEPING_INTERVAL_MS: '200',
};
/** Each bore-server: where it is. */
const ADDRESSES = { old: '127.46.0.1', oldAtNew: '127.46.0.2', new: '127.46.0.3' };

const OpenedTunnel = z.object({ id: z.string(), token: z.string(), host: z.string(), port: z.number() });

const release = await previousRelease();

describe('the previous release', () => {
  let unavailable = 'missing' in release ? release.missing : undefined;
  let database: TestDatabase;
  /** A backend of the previous release, and one of this one, on a database that this one has migrated. */
  let backends: { readonly old: Backend; readonly new: Backend };
  let servers: Record<keyof typeof ADDRESSES, BoreServerProcess>;
  const clients: CarryingClient[] = [];

  beforeEach(({ skip }) => {
    if (unavailable !== undefined) skip(unavailable);
  });

  beforeAll(async () => {
    if ('missing' in release) return;
    const folder = await buildRelease(release).catch((error: unknown) => {
      // nothing else may keep this from being tested
      if (!String(error).includes('registry cannot be reached')) throw error;
      unavailable = `${release.name} cannot be installed: the package registry cannot be reached`;
    });
    if (folder === undefined) return;
    const lacking =
      (await readdir(path.join(PROJECT_DIR, 'prisma/migrations'))).length - (await migrationsOf(release)).length;
    process.stdout.write(`${release.name} runs on a schema that is ${lacking} migrations ahead of it\n`);
    const main = (program: string) => path.join(folder, 'dist', program);
    database = await createDatabase();
    backends = {
      old: await startBackend({ database, env: ENV, main: main('main.js') }),
      new: await startBackend({ database, env: ENV }),
    };
    const [ports, bore] = [{ min: 10_000, max: 10_019 }, main('bore-server/main.js')];
    servers = {
      old: await startBoreServer({ backend: backends.old, serverId: 'old', address: ADDRESSES.old, ports, main: bore }),
      oldAtNew: await startBoreServer({
        backend: backends.new,
        serverId: 'old-at-new',
        address: ADDRESSES.oldAtNew,
        ports,
        main: bore,
      }),
      new: await startBoreServer({ backend: backends.new, serverId: 'new', address: ADDRESSES.new, ports }),
    };
  }, BUILD_TIMEOUT_MS + 60_000);

  afterAll(async () => {
    for (const client of clients) client.stop();
    for (const server of Object.values(servers ?? {})) await server.stop();
    for (const backend of Object.values(backends ?? {})) await backend.stop();
    await database?.drop();
  });

  it.each([
    ['old', 'new'],
    ['new', 'old'],
  ] as const)(
    'serves users whose requests go to either: signed up at the %s one, known at the %s one',
    async (here, there) => {
      const [one, other] = [new Api(backends[here].url), new Api(backends[there].url)];
      const email = `${here}@example.com`;
      const { status, body } = await one.post('/api/v1/auth/signup', { email, password: PASSWORD });
      expect(status).toBe(201);
      const login = await other.post('/api/v1/auth/login', { email, password: PASSWORD });
      expect(login.status).toBe(200);
      const refreshed = await other.post('/api/v1/auth/refresh', { refreshToken: body.refreshToken });
      expect(refreshed.status).toBe(200);
      const user = other.withToken(body.accessToken);
      expect((await user.get('/api/v1/auth/me')).body).toMatchObject({ email });

      // the emptiest bore-server is next: one on each
      const opened = [];
      for (const opener of [one, other, one]) {
        const answer = await opener.withToken(body.accessToken).post('/api/v1/tunnels', {});
        expect(answer.status, answer.text).toBe(201);
        opened.push(OpenedTunnel.parse(answer.body));
      }
      expect(new Set(opened.map(({ host }) => host)).size).toBe(3);
      for (const { id, token, host, port } of opened) {
        const server = Object.values(servers).find(({ address }) => address === host);
        if (!server) throw new Error(`nobody is at ${host}`);
        const client = await CarryingClient.start(server, token, port, (stream) => stream.pipe(stream));
        clients.push(client);
        const visitor = await connect(host, port);
        visitor.end('bytes');
        expect((await readAll(visitor)).bytes.toString()).toBe('bytes');
        // by the heartbeats of the server, at both
        for (const api of [one, other].map((each) => each.withToken(body.accessToken))) {
          const counted = async () => (await api.get(`/api/v1/tunnels/${id}/usage`)).text.includes('"bytesIn":5');
          await until(counted, `usage of a tunnel at ${host}`);
          expect((await api.get(`/api/v1/tunnels/${id}`)).body).toMatchObject({ state: 'active' });
        }
        expect((await user.delete(`/api/v1/tunnels/${id}`)).status).toBe(204);
        await client.over;
      }
    },
  );

  it('keeps its bore-servers, and says no error', async () => {
    const rows = await database.query('SELECT id, state::text FROM servers ORDER BY id');
    expect(rows).toEqual(['new', 'old', 'old-at-new'].map((id) => ({ id, state: 'online' })));
    const said = [...Object.values(backends), ...Object.values(servers)].flatMap((each) => each.output().split('\n'));
    expect(said.filter((line) => /"level":("(error|fatal)"|[56]0)/.test(line))).toEqual([]);
  });
});
