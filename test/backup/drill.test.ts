/**
 * The disaster drill of docs/backup.md: a platform at work is backed up, works on, loses its database, and gets it back. Bore-servers
 * and clients are never told: they run through it.
 */
import { mkdtemp, readdir } from 'node:fs/promises';
import type { Socket } from 'node:net';
import path from 'node:path';

import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest';

import { migrateUp } from '../../src/platform/database/migrations.js';
import { Api } from '../harness/api.js';
import { type OpenedTunnel, Platform } from '../harness/platform.js';
import { connect, readAll, readExactly } from '../harness/sockets.js';
import { SystemPostgres, systemPostgresBin } from '../harness/system-postgres.js';
import { until } from '../harness/until.js';
import { CarryingClient } from '../harness/wire-client.js';
import { backupCommand } from './backup-command.js';
import { digestsOf } from './table-digests.js';

const ADDRESS = '127.0.2.91';
const PASSWORD = 'correct horse battery';
/** So short that deadlines of the backup have passed when it is restored. */
const PENDING_SECONDS = 45;

const echo = (stream: Socket): void => {
  stream.on('error', () => undefined);
  stream.pipe(stream);
};

async function echoed(port: number, text: string): Promise<string> {
  const visitor = await connect(ADDRESS, port);
  visitor.end(text);
  return (await readAll(visitor)).bytes.toString();
}

describe.skipIf(systemPostgresBin() === undefined)('the database is lost and restored', () => {
  let postgres: SystemPostgres;
  let platform: Platform;
  let folder: string;

  beforeAll(async () => {
    postgres = await SystemPostgres.start();
    await migrateUp(postgres.address);
    platform = await Platform.start({
      address: ADDRESS,
      ports: { min: 10_000, max: 10_099 },
      database: postgres,
      env: { PENDING_TUNNEL_SECONDS: String(PENDING_SECONDS), SERVER_LOST_GRACE: '0' },
    });
    folder = await mkdtemp(path.join(inject('scratch'), 'drill-'));
  });
  afterAll(() => platform?.stop());

  const account = async (email: string): Promise<Api> => {
    const api = new Api(platform.backend.url);
    for (const route of ['login', 'signup']) {
      const { status, body } = await api.post(`/api/v1/auth/${route}`, { email, password: PASSWORD });
      if (status < 300) return api.withToken(body.accessToken);
    }
    throw new Error(`${email} could not log in`);
  };
  const carry = ({ token, port }: OpenedTunnel) => CarryingClient.start(platform.server, token, port, echo);
  const sessionOf = async ({ id }: OpenedTunnel) =>
    (await postgres.query('SELECT state::text, session_id, epoch FROM tunnels WHERE id = $1', [id]))[0];
  const usageOf = async (api: Api, { id }: OpenedTunnel): Promise<{ bytesIn: number; connections: number }> =>
    (await api.get(`/api/v1/tunnels/${id}/usage`)).body.total;
  const highestEvent = async () => Number((await postgres.query('SELECT max(id) AS id FROM events'))[0]?.['id']);

  it(
    'brings every row of the backup back, ends no stream and gives every client its port',
    { timeout: 240_000 },
    async () => {
      const alice = await account('alice@example.com');
      const crowd = await Promise.all(Array.from({ length: 10 }, (_, i) => account(`user-${i}@example.com`)));
      const [streaming, returning, waiting] = [
        await platform.open(alice, { name: 'streaming' }),
        await platform.open(alice, { name: 'returning' }),
        await platform.open(alice, { name: 'waiting' }),
      ];
      for (const user of crowd) await platform.open(user, { name: 'of-the-crowd', labels: { kind: 'load' } });
      const early = await carry(streaming);
      expect(await echoed(streaming.port, 'x'.repeat(1_000))).toHaveLength(1_000);
      await until(async () => (await usageOf(alice, streaming)).bytesIn === 1_000, 'usage is in the books');

      // what the backup holds is what was there all the time that it took
      const { before, dump } = await until(
        async () => {
          const before = await digestsOf(postgres);
          const { code, output } = await backupCommand(['backup', '--dir', folder], postgres.address);
          expect([code, output]).toEqual([0, expect.stringContaining('rows')]);
          const after = await digestsOf(postgres);
          if (JSON.stringify(before) !== JSON.stringify(after)) return null;
          return { before, dump: output.slice(0, output.indexOf(':')) };
        },
        'nothing changed while the backup was made',
        60_000,
      );
      const takenAt = performance.now();
      // the backup has their deadlines; here they are waited for however busy the machine is
      await postgres.query(
        `UPDATE tunnels SET idle_deadline = now() + interval '1 hour' WHERE name IN ('returning', 'waiting')`,
      );
      const eventOfBackup = await highestEvent();

      // the platform works on: of this the backup knows nothing
      await platform.server.kill9();
      await platform.startServerAgain();
      await early.over;
      const [client, first, patient] = [await carry(streaming), await carry(returning), await carry(waiting)];
      const unknown = await platform.open(alice, { name: 'unknown' });
      const lost = await carry(unknown);
      const stream = await connect(ADDRESS, streaming.port);
      stream.write('before ');
      expect((await readExactly(stream, 7)).toString()).toBe('before ');
      expect(await echoed(streaming.port, 'y'.repeat(500))).toHaveLength(500);
      await until(
        async () => (await usageOf(alice, streaming)).bytesIn === 1_507,
        'usage is in the books, and will be lost',
      );
      const eventBefore = await highestEvent();
      const session = await sessionOf(streaming);
      await until(
        () => performance.now() - takenAt > PENDING_SECONDS * 1_000,
        'the deadlines of the backup have passed',
        60_000,
      );

      // the disaster
      const destroyedAt = performance.now();
      await platform.backend.kill9();
      await postgres.recreateDatabase();
      stream.write('during ');
      expect((await readExactly(stream, 7)).toString()).toBe('during ');
      expect(await echoed(waiting.port, 'nobody at home')).toBe('nobody at home');

      const restored = await backupCommand(['restore', dump], postgres.address);
      expect(restored).toEqual({ code: 0, output: expect.stringMatching(/^restored: the state of /m) });
      const restoreSeconds = (performance.now() - destroyedAt) / 1000;
      expect(await digestsOf(postgres)).toEqual(before);
      await platform.startBackendAgain();
      const startedSeconds = (performance.now() - destroyedAt) / 1000;
      const back = await account('alice@example.com');
      await until(
        async () => JSON.stringify(await sessionOf(streaming)) === JSON.stringify(session),
        'the session that never ended is known again',
        30_000,
      );
      const recoverySeconds = (performance.now() - destroyedAt) / 1000;

      // the stream never noticed
      stream.write('after ');
      expect((await readExactly(stream, 6)).toString()).toBe('after ');
      // its deadline of the backup had passed, and it is carried
      await until(
        async () => (await platform.stateOf(waiting)) === 'active',
        'the client that came since is known',
        30_000,
      );
      expect(await echoed(waiting.port, 'hello')).toBe('hello');
      // a client comes back to its own port, by the token that it has
      first.stop();
      const again = await carry(returning);
      expect(again.port).toBe(returning.port);
      expect(await echoed(returning.port, 'hello')).toBe('hello');
      // what was opened since is not known any more: it ends, and says so
      expect(await lost.over).toMatch(/unknown/);
      // the last minutes are lost from the books, and nothing is counted twice: 1,000 of the backup, `during ` and `after `
      stream.end();
      await readAll(stream);
      await until(async () => (await usageOf(back, streaming)).bytesIn === 1_013, 'usage goes on from the backup');
      // logins of the past are over; ids of events are new ones
      expect((await alice.at(platform.backend.url).get('/api/v1/auth/me')).status).toBe(401);
      const [anew] = await postgres.query('SELECT min(id) AS id FROM events WHERE id > $1', [eventOfBackup]);
      expect(Number(anew?.['id'])).toBeGreaterThan(eventBefore);
      expect(platform.server.exited()).toBe(false);
      const [counted] = await postgres.query(
        `SELECT bool_and(s.open_tunnels = (SELECT count(*) FROM tunnels t WHERE t.server_id = s.id AND t.state <> 'closed')) AS right FROM servers s`,
      );
      expect(counted).toEqual({ right: true });

      const [lostSeconds, rows] = [(destroyedAt - takenAt) / 1000, Object.keys(before).length];
      process.stdout.write(
        `drill: RPO ${lostSeconds.toFixed(1)} s (since the backup), RTO ${recoverySeconds.toFixed(1)} s (restored after ${restoreSeconds.toFixed(1)} s, backend up after ${startedSeconds.toFixed(1)} s), ${rows} tables equal, ${(await readdir(folder)).length / 2} backup(s)\n`,
      );
      for (const carrier of [client, patient, again]) carrier.stop();
    },
  );
});
