import { mkdtemp } from 'node:fs/promises';
import path from 'node:path';

import pg from 'pg';
import { expect, inject } from 'vitest';
import { z } from 'zod';

import type { Cluster } from '../../src/local/cluster.js';
import { Person } from '../cli/borectl.js';
import { Api } from '../harness/api.js';
import { FaultProxy } from '../harness/fault-proxy.js';
import { OwnCluster } from '../harness/own-cluster.js';
import { until } from '../harness/until.js';
import { ApiLoad } from './api-load.js';
import { ledgerOf, type Query } from './invariants.js';
import { findClock, type MovableClock } from './movable-clock.js';
import { EventListener } from './event-listener.js';
import { EchoService, EndlessVisitor } from './traffic.js';
import { CarriedTunnel } from './carried-tunnel.js';

/** Tunnels of one user: the load's, which pile up while nothing is answered, and those that carry traffic. */
export const PLAN_TUNNELS = 200;
/** Of each server: never the reason for a refusal here. */
const SERVER_TUNNELS = 300;
/** Requests a second: reads, and tunnels opened and deleted. */
const READS_PER_SECOND = 20;
const OPENS_PER_SECOND = 4;
const VISITORS_PER_TUNNEL = 2;
/** Listeners; each through nginx, which gives them to different backends. */
const LISTENERS = 3;
/** Twelve programs, which other suites leave half of the machine. */
export const START_MS = 240_000;
/** Within this, everything works again after what was broken is repaired; a cluster of ten programs on two cores. */
const HEALTHY_MS = 90_000;

/** Until the last bytes are in the ledger: bore-servers report every 5 s. */
const REPORTED_MS = 30_000;
/** Where nginx listens. */
const API_PORT = 3000;
/** A date in HTTP has no fractions, and a jump is noticed within a second. */
const CLOCK_TOLERANCE_MS = 5_000;
const CUT_OFF = 'bore-server-s3';
const CLOCKED = 'backend-1';

const Servers = z.object({ items: z.array(z.object({ id: z.string(), state: z.string() })) });
const KeyMade = z.object({ id: z.string(), key: z.string() });
const Me = z.object({ id: z.string() });

/** A cluster under a steady load, of which every answer, byte and event is looked at. */
export class ChaosBed {
  readonly tunnels: CarriedTunnel[] = [];
  readonly visitors: EndlessVisitor[] = [];
  readonly listeners: EventListener[] = [];
  private readonly echo = new EchoService();
  private holder: pg.Client | undefined;

  private constructor(
    private readonly own: OwnCluster,
    /** Between one bore-server and the backends. */
    readonly link: FaultProxy,
    /** Of one backend; missing where it cannot be had. */
    readonly clock: MovableClock | undefined,
    private readonly admin: Api,
    private readonly person: Person,
    /** Whose everything is. */
    private readonly program: Api,
    readonly userId: string,
    readonly load: ApiLoad,
  ) {}

  /**
   * @param bind a loopback address of the suite's own
   * @param options `stock` is upstream's client, where it can be had; `backendEnv` is for the backends alone
   */
  static async start(
    bind: string,
    { stock, backendEnv }: { readonly stock?: string | undefined; readonly backendEnv?: NodeJS.ProcessEnv },
  ): Promise<ChaosBed> {
    const clock = await findClock(path.join(await mkdtemp(path.join(inject('scratch'), 'clock-')), 'ahead'));
    const link = await FaultProxy.start({ host: bind, port: API_PORT });
    const own = await OwnCluster.start({
      address: bind,
      env: { PLAN_FREE_TUNNELS: String(PLAN_TUNNELS), MAX_TUNNELS_PER_SERVER: String(SERVER_TUNNELS) },
      envOf: (name) => ({
        // its way to the backends is one that can be cut
        ...(name === CUT_OFF && { BORE_BACKEND_URL: `http://${link.host}:${link.port}` }),
        ...(name === CLOCKED && clock?.env),
        ...(name.startsWith('backend-') && backendEnv),
      }),
    });
    const person = await Person.at(own.cluster.url);
    const owner = await newAccount(own.api);
    const scopes = ['tunnels:read', 'tunnels:write', 'usage:read'];
    const made = await owner.post('/api/v1/auth/api-keys', { name: 'chaos', scopes });
    const { key } = KeyMade.parse(made.body);
    person.shell['BORE_API_KEY'] = key;
    const program = own.api.withToken(key);
    const userId = Me.parse((await owner.get('/api/v1/auth/me')).body).id;
    const load = new ApiLoad(program);
    const bed = new ChaosBed(own, link, clock, await own.admin(), person, program, userId, load);
    try {
      await bed.begin(stock);
      await bed.healthy();
      return bed;
    } catch (error) {
      await bed.stop();
      throw error;
    }
  }

  private async begin(stock: string | undefined): Promise<void> {
    const { listeners, tunnels, visitors, program } = this;
    for (let i = 0; i < LISTENERS; i++) listeners.push(new EventListener(program));
    for (const listener of listeners) listener.start();
    await until(() => listeners.every((each) => each.isConnected), 'the listeners listen');
    const localPort = await this.echo.start();
    for (const { portRange } of this.own.settings.machines) {
      tunnels.push(await CarriedTunnel.byBorectl(this.person, program, localPort, portRange.max));
      if (stock !== undefined) tunnels.push(await CarriedTunnel.byStock(stock, program, localPort, portRange.max - 1));
    }
    for (const tunnel of tunnels)
      for (let i = 0; i < VISITORS_PER_TUNNEL; i++) visitors.push(new EndlessVisitor(tunnel));
    await Promise.all(visitors.map((visitor) => visitor.start()));
    this.load.start({ read: 1000 / READS_PER_SECOND, write: 1000 / OPENS_PER_SECOND });
  }

  get cluster(): Cluster {
    return this.own.cluster;
  }

  /** Asks the database that is written to. */
  readonly query: Query = async (sql, values = []) => {
    const client = new pg.Client({ ...this.cluster.database, application_name: 'chaos' });
    await client.connect();
    try {
      return (await client.query(sql, [...values])).rows;
    } finally {
      await client.end();
    }
  };

  /** Resolves when no commit is acknowledged that the replica does not have. */
  async replicaIsSynchronous(): Promise<void> {
    const isSynchronous = async () =>
      (await this.query(`SELECT FROM pg_stat_replication WHERE sync_state IN ('sync', 'quorum')`)).length === 1;
    await until(isSynchronous, 'the replica is synchronous');
  }

  /** Moves the clock of one backend; resolves when that says so. */
  async moveClock(seconds: number): Promise<void> {
    await this.clock?.jump(seconds);
    const hasMoved = async () => {
      const { headers } = await new Api(this.own.backendUrl(0)).get('/health/live');
      const aheadMs = Date.parse(headers.get('date') ?? '') - Date.now();
      return Math.abs(aheadMs - seconds * 1000) < CLOCK_TOLERANCE_MS;
    };
    await until(hasMoved, `the clock of ${CLOCKED} is ${seconds} s ahead`);
  }

  /** Everything that asks for tunnels waits, until `releaseTunnels`: the pools of all backends fill up. */
  async holdTunnels(): Promise<void> {
    const holder = new pg.Client({ ...this.cluster.database, application_name: 'chaos' });
    await holder.connect();
    await holder.query('BEGIN');
    await holder.query('LOCK TABLE tunnels IN ACCESS EXCLUSIVE MODE');
    this.holder = holder;
  }

  async releaseTunnels(): Promise<void> {
    await this.holder?.end();
    this.holder = undefined;
  }

  /** Resolves when every part says that it is well, and everything works; with how long that took. */
  async healthy(): Promise<number> {
    const startedAt = performance.now();
    for (const [i, { name }] of this.cluster.backends.entries()) {
      const isUp = async () => {
        const answer = await new Api(this.own.backendUrl(i)).get('/health/ready').catch(() => null);
        return answer?.status === 200 && answer.body.details.redis.status === 'up';
      };
      await until(isUp, `${name} is ready`, HEALTHY_MS);
    }
    const areOnline = async () => {
      const answer = await this.admin.get('/api/v1/admin/servers').catch(() => null);
      const parsed = Servers.safeParse(answer?.body);
      return parsed.success && parsed.data.items.every(({ state }) => state === 'online');
    };
    await until(areOnline, 'all bore-servers are online', HEALTHY_MS);
    await until(() => this.visitors.every((visitor) => visitor.isCarried), 'all visitors are carried', HEALTHY_MS);
    await until(() => this.listeners.every((each) => each.isConnected), 'all listeners listen', HEALTHY_MS);
    await until(() => this.load.isAnswered, 'all requests are answered', HEALTHY_MS);
    return performance.now() - startedAt;
  }

  /** Resolves when every listener has been told of everything that has happened up to now, with the last event's id. */
  async told(): Promise<bigint> {
    const [row] = await this.query('SELECT max(id)::text AS id FROM events WHERE user_id = $1', [this.userId]);
    const { id } = z.object({ id: z.string() }).parse(row);
    const last = BigInt(id);
    const heard = () => this.listeners.every(({ received }) => BigInt(received.at(-1) ?? 0) >= last);
    await until(heard, `all listeners have heard of event ${id}`, 30_000);
    return last;
  }

  /**
   * Ends every stream politely, compares what each tunnel has carried with the ledger, and begins new streams. Of streams
   * that broke nobody knows what was under way: their tunnels are left out.
   * @returns what was compared, and equal
   */
  async compareBytes(): Promise<string[]> {
    await Promise.all(this.visitors.map((visitor) => visitor.stop()));
    const compared: string[] = [];
    for (const { id, carrier, port } of this.tunnels) {
      const visitors = this.visitors.filter(({ address }) => address.port === port);
      if (visitors.some(({ bytes }) => !bytes.exact)) continue;
      const carried = visitors.reduce((sum, { bytes }) => sum + bytes.count, 0);
      const ledger = () => ledgerOf(this.query, id);
      await expect.poll(ledger, { timeout: REPORTED_MS }).toEqual({ in: carried, out: carried });
      compared.push(`${carrier} at ${port} ${carried}`);
    }
    await Promise.all(this.visitors.map((visitor) => visitor.start()));
    return compared;
  }

  /** Ends the load and the streams, politely; the cluster still runs. */
  async calm(): Promise<void> {
    await this.load.stop();
    await Promise.all(this.visitors.map((visitor) => visitor.stop()));
  }

  async stop(): Promise<void> {
    await this.calm();
    await Promise.all(this.listeners.map((listener) => listener.stop()));
    for (const tunnel of this.tunnels) await tunnel.stop();
    await this.person.leave();
    this.echo.stop();
    await this.own.stop();
    await this.link.close();
  }
}

async function newAccount(api: Api): Promise<Api> {
  const account = { email: 'chaos@example.com', password: 'correct horse battery' };
  const { body } = await api.post('/api/v1/auth/signup', account);
  return api.withToken(z.object({ accessToken: z.string() }).parse(body).accessToken);
}
