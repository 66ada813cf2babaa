import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdtemp, writeFile } from 'node:fs/promises';
import path from 'node:path';

import pg from 'pg';
import { inject } from 'vitest';

import { PROJECT_DIR } from '../../src/local/state-folders.js';
import { Api } from '../harness/api.js';
import { OwnRedis, REDIS_PASSWORD } from '../harness/own-redis.js';
import { Platform } from '../harness/platform.js';
import { startSmallPrometheus } from '../preflight/small-prometheus.js';

import { machineChange, type ShellBlock, without } from './commands.js';

/** A command of a page on a machine that is busy; `npm run` looks first whether there is something to build. */
const COMMAND_TIMEOUT_MS = 60_000;
const PASSWORD = 'correct horse battery';
const ADMIN_EMAIL = 'admin@example.com';

/** Everything that the pages speak of, at other addresses. */
export class ReadableInstallation {
  private constructor(
    private readonly platform: Platform,
    private readonly redis: OwnRedis,
    private readonly prometheus: { readonly url: string; readonly stop: () => Promise<void> },
    private readonly folder: string,
    private readonly env: NodeJS.ProcessEnv,
    private readonly names: readonly (readonly [string, string])[],
    private readonly made: { readonly user: string; readonly database: string; readonly password: string },
  ) {}

  static async start(address: string): Promise<ReadableInstallation> {
    const folder = await mkdtemp(path.join(inject('scratch'), 'docs-'));
    const redis = await OwnRedis.start();
    const metricsToken = randomBytes(32).toString('hex');
    const platform = await Platform.start({
      address,
      ports: { min: 20_020, max: 20_039 },
      env: {
        ...redis.env,
        ALLOW_INSTANCES_WITHOUT_REDIS: 'false',
        ADMIN_EMAIL,
        ADMIN_PASSWORD: PASSWORD,
        METRICS_TOKEN: metricsToken,
      },
      serverEnv: { BORE_METRICS_TOKEN: metricsToken },
    });
    const { backend, server, database } = platform;
    const api = new Api(backend.url);
    await api.post('/api/v1/auth/signup', { email: 'you@example.com', password: PASSWORD });
    const { body: login } = await api.post('/api/v1/auth/login', { email: ADMIN_EMAIL, password: PASSWORD });
    const admin = api.withToken(login.accessToken);
    const { body: key } = await admin.post('/api/v1/auth/api-keys', { name: 'docs', scopes: ['admin:read'] });
    const asked = { 'x-request-id': 'support-case-4711' };
    await admin.send('GET', '/api/v1/tunnels', undefined, asked);
    const prometheus = await startSmallPrometheus({
      targets: { 'bore-backend': [new URL(backend.url).host], 'bore-server': [new URL(server.adminUrl).host] },
      token: metricsToken,
    });
    // whatever answers 4xx or 5xx fails its line
    await writeFile(path.join(folder, '.curlrc'), 'fail\n');
    await writeFile(path.join(folder, 'backend.log'), backend.output());
    const { host, port, user, password } = database.address;
    const made = {
      user: `docs_${randomBytes(4).toString('hex')}`,
      database: `docs_${randomBytes(4).toString('hex')}`,
      password: randomBytes(24).toString('hex'),
    };
    const env = {
      PATH: process.env['PATH'],
      HOME: folder,
      CURL_HOME: folder,
      api: `${backend.url}/api/v1`,
      token: String(login.accessToken),
      METRICS_TOKEN: metricsToken,
      BORE_API_KEY: String(key.key),
      PGPORT: String(port),
      PGUSER: user,
      PGPASSWORD: password,
      REDISCLI_AUTH: REDIS_PASSWORD,
      // of the database that docs/deployment.md makes
      DB_HOST: host,
      DB_PORT: String(port),
      DB_NAME: made.database,
      DB_USER: made.user,
      DB_PASSWORD: made.password,
    };
    const names = [
      ['http://127.0.0.1:3000', backend.url],
      ['https://api.yourdomain.com', backend.url],
      ['http://backend1.internal:3000', backend.url],
      ['http://bore1.internal:7836', server.adminUrl],
      ['http://localhost:9090', prometheus.url],
      ['postgres.internal', host],
      ['redis-cli -h $REDIS_HOST', `redis-cli -h 127.0.0.1 -p ${redis.port}`],
      ['-U bore_user -d bore_db', `-U ${user} -d ${database.address.database}`],
      ['"password":"…"', `"password":"${PASSWORD}"`],
    ] as const;
    return new ReadableInstallation(platform, redis, prometheus, folder, env, names, made);
  }

  /** Runs SQL of a page as the superuser, under names of this suite's own. */
  async runSql(sql: string): Promise<void> {
    const { user, database, password } = this.made;
    const text = sql
      .replaceAll('bore_user', user)
      .replaceAll('bore_db', database)
      .replaceAll('CHANGE_ME_STRONG_PASSWORD', password);
    const client = new pg.Client({ ...inject('postgres') });
    await client.connect();
    try {
      for (const statement of text.split(';').map((one) => one.trim())) {
        // CREATE DATABASE stands by itself
        if (statement !== '') await client.query(statement);
      }
    } finally {
      await client.end();
    }
  }

  /**
   * Runs a block as a reader would who has put the own names in, behind those that come first on its page.
   * @throws Error with all that it has said, when a command fails, and before any has run when one would change the machine
   */
  run(block: ShellBlock, first: readonly ShellBlock[], leftOut: readonly string[]): Promise<string> {
    const script = [...first, block].map(({ text }) => without(text, leftOut)).join('\n');
    const change = machineChange(script);
    if (change !== undefined) throw new Error(`${block.page}:${block.line} would change this machine: ${change}`);
    const put = this.names.reduce((text, [name, own]) => text.replaceAll(name, own), script);
    // `npm run` belongs to the clone; a page about logs to where they are
    const cwd = put.includes('*.log') ? this.folder : PROJECT_DIR;
    return new Promise((resolve, reject) => {
      const options = { env: this.env, cwd, timeout: COMMAND_TIMEOUT_MS };
      execFile('bash', ['-euo', 'pipefail', '-c', put], options, (error, stdout, stderr) => {
        if (error) reject(new Error(`${block.page}:${block.line} fails (${error.code}):\n${put}\n${stdout}${stderr}`));
        else resolve(stdout);
      });
    });
  }

  async stop(): Promise<void> {
    await this.prometheus.stop();
    await this.platform.stop();
    await this.redis.stop();
    const client = new pg.Client({ ...inject('postgres') });
    await client.connect();
    await client.query(`DROP DATABASE IF EXISTS ${this.made.database} WITH (FORCE)`);
    await client.query(`DROP ROLE IF EXISTS ${this.made.user}`);
    await client.end();
  }
}
