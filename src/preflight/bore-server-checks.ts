import { once } from 'node:events';
import net from 'node:net';

import pLimit from 'p-limit';
import { z } from 'zod';

import type { Config } from '../platform/config/config.js';
import { INTERNAL_KEY_HEADER } from '../protocol/plane-api.js';
import { hasTable } from './database-checks.js';
import type { DatabaseReader } from './database-reader.js';
import { type Check, fail, type Finding, type Group, listed, notChecked, pass, reasonOf } from './finding.js';
import { ask, below } from './http-answer.js';

/** A bore-server says hello within milliseconds. */
const TIMEOUT_MS = 5_000;
/** Asked at once; a fleet is asked in some seconds. */
const CONCURRENCY = 20;
/** More than any fleet has. */
const SERVERS_MAX = 1_000;
/** The tunnel that no tunnel is. */
const NIL_UUID = '00000000-0000-0000-0000-000000000000';

const Server = z.object({
  id: z.string(),
  host: z.string(),
  port: z.int(),
  state: z.string(),
  adminUrl: z.string().nullable(),
});
export type Server = z.infer<typeof Server>;

/** The register of bore-servers; undefined: the database is not migrated. */
export async function registeredServers(database: DatabaseReader): Promise<Server[] | undefined> {
  if (!(await hasTable(database, 'servers'))) return undefined;
  return database.rows(
    Server,
    `SELECT id, host, port, state::text AS state, admin_url AS "adminUrl" FROM servers
      WHERE deleted_at IS NULL ORDER BY id LIMIT ${SERVERS_MAX}`,
  );
}

/**
 * @param servers the register; undefined: it could not be read
 * @param adminUrls asked in place of what is registered, where given
 */
export function boreServerChecks(
  config: Config,
  servers: readonly Server[] | undefined,
  adminUrls: readonly string[],
): Group {
  const running = servers?.filter(({ state }) => state !== 'offline' && state !== 'disabled') ?? [];
  const admins =
    adminUrls.length > 0
      ? adminUrls.map((url) => ({ id: url, adminUrl: url }))
      : running.flatMap(({ id, adminUrl }) => (adminUrl === null ? [] : [{ id, adminUrl }]));
  const none: Check['run'] = () => notChecked('no bore-server is online');
  return {
    name: 'bore-servers',
    checks: [
      { id: 'bore-servers', title: 'bore-servers are online', run: () => online(servers) },
      {
        id: 'bore-server-control',
        title: 'clients reach their control ports',
        run: running.length === 0 ? none : () => controlPorts(running),
      },
      {
        id: 'bore-server-key',
        title: 'INTERNAL_API_KEY is theirs',
        run: admins.length === 0 ? none : () => keys(config, admins),
      },
    ],
  };
}

function online(servers: readonly Server[] | undefined): Finding {
  if (servers === undefined)
    return notChecked('the register is not read: the database is not reached, or not migrated');
  const mend = 'look at their logs (docs/runbook.md#boreserverlost); DELETE admin/servers/:id what will not come back';
  if (servers.length === 0)
    return fail('there is none', 'start a bore-server (docs/bore-server.md): it registers itself');
  const away = servers.filter(({ state }) => state === 'offline').map(({ id }) => id);
  if (away.length > 0) return fail(`offline: ${listed(away)}`, mend);
  const others = servers.filter(({ state }) => state !== 'online').map(({ id, state }) => `${id} (${state})`);
  if (others.length === servers.length) return fail(`none is online: ${listed(others)}`, mend);
  return pass(`${servers.length - others.length}${others.length > 0 ? `; not: ${listed(others)}` : ''}`);
}

async function controlPorts(servers: readonly Server[]): Promise<Finding> {
  const places = [...new Map(servers.map(({ host, port }) => [`${host}:${port}`, { host, port }])).entries()];
  const limit = pLimit(CONCURRENCY);
  const troubles = await Promise.all(
    places.map(([name, place]) =>
      limit(() =>
        challenge(place).then(
          () => undefined,
          (error: unknown) => `${name}: ${reasonOf(error)}`,
        ),
      ),
    ),
  );
  const wrong = troubles.filter((trouble) => trouble !== undefined);
  if (wrong.length === 0) return pass(listed(places.map(([name]) => name)));
  return fail(listed(wrong), 'open the control port to everybody, and see whether BORE_HOST names the bore-server');
}

/** Connects as a client does, and hears what a bore-server says first. */
async function challenge({ host, port }: { readonly host: string; readonly port: number }): Promise<void> {
  const socket = net.connect({ host, port });
  try {
    const signal = AbortSignal.timeout(TIMEOUT_MS);
    const [first] = z.tuple([z.instanceof(Buffer)]).parse(await once(socket, 'data', { signal }));
    if (!first.toString('latin1').startsWith('{"Challenge":')) throw new Error('what answers there is no bore-server');
  } catch (error) {
    if (error instanceof Error && error.name === 'AbortError') throw new Error('no Challenge', { cause: error });
    throw error;
  } finally {
    socket.destroy();
  }
}

/** Orders nothing: the body is refused, after the key was looked at. */
async function keys(
  { INTERNAL_API_KEY: [key] }: Config,
  admins: readonly { readonly id: string; readonly adminUrl: string }[],
): Promise<Finding> {
  const limit = pLimit(CONCURRENCY);
  const init = { method: 'POST', body: '{}', headers: { [INTERNAL_KEY_HEADER]: key?.reveal() ?? '' } };
  const troubles = await Promise.all(
    admins.map(({ id, adminUrl }) =>
      limit(async () => {
        try {
          const { status } = await ask(below(adminUrl, `/tunnels/${NIL_UUID}/close`), init);
          if (status === 400) return undefined;
          return `${id} ${status === 401 ? 'has another key' : `answers ${status}`}`;
        } catch (error) {
          return `${id}: ${reasonOf(error)}`;
        }
      }),
    ),
  );
  const wrong = troubles.filter((trouble) => trouble !== undefined);
  if (wrong.length === 0) return pass(`accepted by ${admins.length}`);
  return fail(
    listed(wrong),
    'BORE_BACKEND_API_KEY of a bore-server must hold the first INTERNAL_API_KEY; its admin port must be open to backends',
  );
}
