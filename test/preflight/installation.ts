import { randomBytes } from 'node:crypto';
import { mkdtemp, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

import { inject } from 'vitest';
import { z } from 'zod';

import { dumpName, manifestOf } from '../../src/backup/manifest.js';
import { type Backend, startBackend } from '../harness/backend.js';
import { type BoreServerProcess, startBoreServer } from '../harness/bore-server.js';
import { createDatabase, type TestDatabase } from '../harness/database.js';
import { OwnRedis } from '../harness/own-redis.js';
import { RunningProcess } from '../harness/running-process.js';
import { type OwnAlertmanager, startAlertmanager } from '../monitoring/own-alertmanager.js';
import { type Certificates, Front, makeCertificates } from './front.js';
import { startSmallPrometheus, type Watching } from './small-prometheus.js';

const MAIN = fileURLToPath(new URL('../../dist/preflight/main.js', import.meta.url));

const Report = z.object({
  passed: z.int(),
  failed: z.int(),
  notChecked: z.int(),
  checks: z.array(
    z.object({
      id: z.string(),
      group: z.string(),
      title: z.string(),
      status: z.enum(['pass', 'fail', 'not-checked']),
      found: z.string(),
      mend: z.string().optional(),
    }),
  ),
});
export type Report = z.infer<typeof Report>;

export interface Answer {
  readonly code: number | null;
  readonly output: string;
}

const secret = () => randomBytes(32).toString('hex');

/** What the programs of this installation share, and nobody else has. */
const SECRETS = {
  JWT_SECRET: secret(),
  TUNNEL_KEY_SECRET: secret(),
  METRICS_TOKEN: secret(),
  REDIS_PASSWORD: secret(),
};
/** The first is of all; one more is known to backends alone, and one to bore-servers alone. */
export const KEYS = { all: secret(), ofBackends: secret(), ofBoreServers: secret() };

/** Two backends, a bore-server, and everything that is beside them in production. */
export class Installation {
  private constructor(
    readonly database: TestDatabase,
    readonly redis: OwnRedis,
    readonly backends: readonly Backend[],
    readonly boreServer: BoreServerProcess,
    readonly front: Front,
    readonly certificates: Certificates,
    readonly folder: string,
    readonly alertmanager: OwnAlertmanager,
    readonly prometheus: { readonly url: string; readonly stop: () => Promise<void> },
    /** A login of PostgreSQL that may read, and nothing else. */
    private readonly reader: { readonly user: string; readonly password: string },
  ) {}

  static async start(address: string): Promise<Installation> {
    const folder = await mkdtemp(path.join(inject('scratch'), 'preflight-'));
    const database = await createDatabase();
    const reader = { user: `reader_${randomBytes(4).toString('hex')}`, password: secret() };
    await database.query(`CREATE ROLE ${reader.user} LOGIN PASSWORD '${reader.password}' IN ROLE pg_read_all_data`);
    const redis = await OwnRedis.start();
    await redis.changePassword(SECRETS.REDIS_PASSWORD);
    const env = {
      ...redis.env,
      ...SECRETS,
      NODE_ENV: 'production',
      INTERNAL_API_KEY: `${KEYS.all},${KEYS.ofBackends}`,
      HEARTBEAT_INTERVAL_MS: '500',
      ALLOW_INSTANCES_WITHOUT_REDIS: 'false',
      TRUST_PROXY: '127.0.0.1',
      BACKEND_INSTANCES: '2',
    };
    const first = await startBackend({ database, env });
    const backends = [first, await startBackend({ database, env })];
    const boreServer = await startBoreServer({
      backend: first,
      address,
      ports: { min: 20_000, max: 20_009 },
      env: {
        BORE_BACKEND_API_KEY: `${KEYS.all},${KEYS.ofBoreServers}`,
        BORE_METRICS_TOKEN: SECRETS.METRICS_TOKEN,
      },
    });
    const certificates = makeCertificates(folder, 'good', 60);
    const front = await Front.start(first.url, certificates, SECRETS.METRICS_TOKEN);
    const alertmanager = await startAlertmanager('http://127.0.0.1:1/nobody');
    const prometheus = await startSmallPrometheus(watching(backends, boreServer, alertmanager));
    await writeBackup(folder, database.address.database, new Date());
    const rest = [front, certificates, folder, alertmanager, prometheus, reader] as const;
    return new Installation(database, redis, backends, boreServer, ...rest);
  }

  /** What its Prometheus watches. */
  get watching(): Watching {
    return watching(this.backends, this.boreServer, this.alertmanager);
  }

  /** Settings of its backends, as an operator has them in `.env`. */
  get env(): NodeJS.ProcessEnv {
    const { host, port, database } = this.database.address;
    return {
      PATH: process.env['PATH'],
      NODE_EXTRA_CA_CERTS: this.certificates.authority,
      ...SECRETS,
      NODE_ENV: 'production',
      INTERNAL_API_KEY: `${KEYS.all},${KEYS.ofBackends}`,
      DB_HOST: host,
      DB_PORT: String(port),
      DB_NAME: database,
      DB_USER: this.reader.user,
      DB_PASSWORD: this.reader.password,
      BACKEND_INSTANCES: '2',
      ...this.redis.env,
      REDIS_PASSWORD: SECRETS.REDIS_PASSWORD,
      TRUST_PROXY: '127.0.0.1',
      ALLOWED_ORIGINS: 'https://app.example.com',
    };
  }

  get flags(): Record<string, string> {
    return {
      '--api': this.front.url,
      '--prometheus': this.prometheus.url,
      '--alertmanager': `http://${this.alertmanager.address}`,
      '--backup-dir': this.folder,
    };
  }

  /** Runs `npm run preflight` on it, with other settings and flags in places. */
  async preflight(
    env: NodeJS.ProcessEnv = {},
    flags: Record<string, string> = {},
    more: string[] = [],
    usual = this.flags,
  ): Promise<Answer> {
    const args = [...Object.entries({ ...usual, ...flags }).flat(), ...more];
    // a folder without `.env`
    const run = new RunningProcess(process.execPath, [MAIN, ...args], { ...this.env, ...env }, this.folder);
    const code = await run.exitCode();
    const output = run.output();
    for (const text of [...Object.values(SECRETS), ...Object.values(KEYS), this.reader.password])
      if (output.includes(text)) throw new Error(`a secret is shown:\n${output}`);
    return { code, output };
  }

  async report(
    env: NodeJS.ProcessEnv = {},
    flags: Record<string, string> = {},
  ): Promise<Report & { code: number | null }> {
    const { code, output } = await this.preflight(env, flags, ['--json']);
    return { ...Report.parse(JSON.parse(output)), code };
  }

  async stop(): Promise<void> {
    await this.prometheus.stop();
    await this.alertmanager.process.stop();
    await this.front.stop();
    await this.boreServer.stop();
    for (const backend of this.backends) await backend.stop();
    await this.redis.stop();
    await this.database.query(`DROP ROLE ${this.reader.user}`);
    await this.database.drop();
  }
}

function watching(
  backends: readonly Backend[],
  boreServer: BoreServerProcess,
  alertmanager: OwnAlertmanager,
): Watching {
  return {
    targets: {
      'bore-backend': backends.map(({ url }) => new URL(url).host),
      'bore-server': [new URL(boreServer.adminUrl).host],
    },
    token: SECRETS.METRICS_TOKEN,
    alertmanager: alertmanager.address,
  };
}

/** What `npm run backup` leaves, as far as its age and size go. */
export async function writeBackup(folder: string, database: string, takenAt: Date): Promise<string> {
  const file = dumpName(takenAt, false);
  const dump = path.join(folder, file);
  await writeFile(dump, 'a dump');
  const manifest = manifestOf({
    takenAt: takenAt.toISOString(),
    database,
    serverVersion: '18.4',
    migrations: [],
    rows: {},
    file,
    bytes: 6,
    sha256: '0'.repeat(64),
    encryption: 'none',
  });
  await writeFile(`${dump}.manifest.json`, JSON.stringify(manifest));
  return dump;
}
