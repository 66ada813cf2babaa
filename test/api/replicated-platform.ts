import { Api } from '../harness/api.js';
import { type Backend, SECRETS, startBackend } from '../harness/backend.js';
import { OwnPostgres } from '../harness/own-postgres.js';
import { OwnReplica } from '../harness/own-replica.js';
import { until } from '../harness/until.js';
import { PlaneClient } from './plane-client.js';

/** Several delays. */
const LATE_MS = 15_000;
const ADMIN = { ADMIN_EMAIL: 'admin@example.com', ADMIN_PASSWORD: 'correct horse battery' };

/** An account with one tunnel, on the first backend. */
export interface Owner {
  readonly api: Api;
  readonly email: string;
  readonly userId: string;
  readonly tunnelId: string;
  readonly path: string;
  /** The list that shows the tunnel to `api`. */
  readonly list: string;
}

/** Two backends on a PostgreSQL with one streaming replica, and a bore-server to open tunnels on. */
export class ReplicatedPlatform {
  private accounts = 0;

  private constructor(
    readonly postgres: OwnPostgres,
    readonly replica: OwnReplica,
    private readonly backends: readonly Backend[],
    private readonly server: PlaneClient,
  ) {}

  static async start(): Promise<ReplicatedPlatform> {
    const postgres = await OwnPostgres.start();
    const replica = await OwnReplica.start(postgres, 'replica_1');
    const env = {
      DB_REPLICA_HOSTS: replica.host,
      PLAN_FREE_TUNNELS: '1000',
      SERVER_LEASE_SECONDS: '600',
      ...ADMIN,
    };
    const first = await startBackend({ database: postgres, env });
    const backends = [first, await startBackend({ database: postgres, env })];
    const server = new PlaneClient(first.url, SECRETS.INTERNAL_API_KEY, 's1', { min: 10_000, max: 10_999 });
    await server.register({ maxTunnels: 1_000 });
    await Promise.all(backends.map((backend) => backend.waitFor('"msg":"replica in use"')));
    return new ReplicatedPlatform(postgres, replica, backends, server);
  }

  async stop(): Promise<void> {
    this.server.close();
    for (const backend of this.backends) await backend.stop();
    await this.replica.stop();
    await this.postgres.drop();
  }

  /** One of the two, in turn. */
  at(i: number): Backend {
    const backend = this.backends[i % 2];
    if (!backend) throw new Error('no backend');
    return backend;
  }

  async newOwner(): Promise<Owner> {
    const account = { email: `${this.accounts++}@example.com`, password: 'correct horse battery' };
    const { body } = await new Api(this.at(0).url).post('/api/v1/auth/signup', account);
    const api = new Api(this.at(0).url).withToken(body.accessToken);
    const { id } = (await api.post('/api/v1/tunnels', { name: 'made' })).body;
    return {
      api,
      email: account.email,
      userId: String(body.user.id),
      tunnelId: String(id),
      path: `/api/v1/tunnels/${id}`,
      list: '/api/v1/tunnels',
    };
  }

  async admin(): Promise<Api> {
    const login = { email: ADMIN.ADMIN_EMAIL, password: ADMIN.ADMIN_PASSWORD };
    const { body } = await new Api(this.at(0).url).post('/api/v1/auth/login', login);
    return new Api(this.at(0).url).withToken(body.accessToken);
  }

  /** The name that the owner's list shows at a backend. */
  async nameInList({ api, list }: Owner, i: number): Promise<unknown> {
    return (await api.at(this.at(i).url).get(list)).body.items?.[0]?.name;
  }

  /** Changes a row behind the API's back, on the primary: a list with the old name has come from a replica. */
  async renameOnPrimary({ tunnelId }: Owner, name: string): Promise<void> {
    await this.postgres.query('UPDATE tunnels SET name = $2 WHERE id = $1', [tunnelId, name]);
  }

  /** What the i-th backend says of it. */
  async isReplicaInUse(i: number): Promise<boolean> {
    return (await new Api(this.at(i).url).get('/health/ready')).body.details.replicas.status === 'up';
  }

  /** With the replay paused, so that the replica has the old name for as long as we look. */
  async isReadFromReplica(owner: Owner, i: number): Promise<boolean> {
    const name = `renamed-${performance.now()}`.replace('.', '-').slice(0, 30);
    await this.replica.pauseReplay();
    try {
      await this.renameOnPrimary(owner, name);
      return (await this.nameInList(owner, i)) !== name;
    } finally {
      await this.replica.resumeReplay();
    }
  }

  /** What the replica shows is late by this, and never so late that it would be left out. */
  async delayReplica(delay: `${number}ms`): Promise<void> {
    await this.setDelay(`SET recovery_min_apply_delay = '${delay}'`);
    // the process that replays hears of it some time later
    await until(async () => (await this.replayLag()) >= parseInt(delay, 10), 'the replica is late', LATE_MS);
  }

  /** How long a commit takes to be seen on the replica, in ms. */
  private async replayLag(): Promise<number> {
    const began = performance.now();
    await this.postgres.query(`SELECT pg_logical_emit_message(true, 'lag', '')`);
    const [{ lsn } = {}] = await this.postgres.query('SELECT pg_current_wal_insert_lsn()::text AS lsn');
    const isReplayed = async () =>
      (await this.replica.query('SELECT pg_last_wal_replay_lsn() >= $1::pg_lsn AS so', [lsn]))[0]?.['so'];
    await until(isReplayed, 'a commit is replayed', LATE_MS);
    return performance.now() - began;
  }

  async endDelay(): Promise<void> {
    await this.setDelay('RESET recovery_min_apply_delay');
  }

  private async setDelay(statement: string): Promise<void> {
    await this.replica.query(`ALTER SYSTEM ${statement}`);
    await this.replica.query('SELECT pg_reload_conf()');
  }

  /** How often the log of a backend has a text. */
  timesSaid(i: number, text: string): number {
    return this.at(i).output().split(text).length - 1;
  }
}
