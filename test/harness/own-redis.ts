import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtemp, writeFile } from 'node:fs/promises';
import path from 'node:path';

import { Redis } from 'ioredis';
import { inject } from 'vitest';

import { ownPort } from './own-ports.js';
import { RunningProcess } from './running-process.js';
import { scanRedis } from './secret-scan.js';

/** Of test installations only. */
export const REDIS_PASSWORD = 'redis-0123456789abcdef';

/** Why no Redis can be had here, or `undefined`. */
export function redisMissing(): string | undefined {
  const { error } = spawnSync('redis-server', ['--version']);
  return error && 'redis-server is not installed: apt-get install redis-server';
}

interface Options {
  /** Also listens with TLS, under a certificate of its own. */
  readonly tls?: boolean;
  /** More lines of redis.conf. */
  readonly settings?: readonly string[];
}

/** A Redis of a suite's own, with a password and nothing on disk. */
export class OwnRedis {
  private password = REDIS_PASSWORD;

  private constructor(
    readonly port: number,
    readonly tlsPort: number,
    /** Holds `cert.pem` where it listens with TLS. */
    readonly folder: string,
    private process: RunningProcess,
  ) {}

  static async start({ tls = false, settings = [] }: Options = {}): Promise<OwnRedis> {
    const folder = await mkdtemp(path.join(inject('scratch'), 'redis-'));
    const port = await ownPort();
    const tlsPort = tls ? await ownPort() : 0;
    if (tls) makeCertificate(folder);
    const lines = [
      'bind 127.0.0.1',
      `port ${port}`,
      `dir ${folder}`,
      'save ""',
      'maxmemory-policy noeviction',
      `requirepass ${REDIS_PASSWORD}`,
      `masterauth ${REDIS_PASSWORD}`,
      ...(tls ? [`tls-port ${tlsPort}`, 'tls-auth-clients no'] : []),
      ...(tls ? [`tls-cert-file ${folder}/cert.pem`, `tls-key-file ${folder}/key.pem`] : []),
      ...settings,
    ];
    await writeFile(path.join(folder, 'redis.conf'), `${lines.join('\n')}\n`);
    return new OwnRedis(port, tlsPort, folder, await run(folder));
  }

  /** What a backend needs to know. */
  get env(): NodeJS.ProcessEnv {
    return { REDIS_ENABLED: 'true', REDIS_HOST: '127.0.0.1', REDIS_PORT: String(this.port), REDIS_PASSWORD };
  }

  /** Runs something with a client of the test's own. */
  async ask<T>(question: (redis: Redis) => Promise<T>): Promise<T> {
    const client = new Redis({ host: '127.0.0.1', port: this.port, password: this.password });
    try {
      return await question(client);
    } finally {
      client.disconnect();
    }
  }

  async changePassword(password: string): Promise<void> {
    await this.ask((redis) => redis.config('SET', 'requirepass', password));
    this.password = password;
  }

  get isRunning(): boolean {
    return !this.process.exited();
  }

  signal(signal: NodeJS.Signals): void {
    this.process.signal(signal);
  }

  kill9(): Promise<void> {
    return this.process.kill9();
  }

  /** Another one at the same place, which knows nothing of the first. */
  async startAgain(): Promise<void> {
    this.process = await run(this.folder);
  }

  /** Fails when it holds a secret in clear. */
  async stop(): Promise<void> {
    if (this.isRunning) await this.ask(scanRedis);
    await this.process.kill9();
  }
}

async function run(folder: string): Promise<RunningProcess> {
  const server = new RunningProcess('redis-server', [path.join(folder, 'redis.conf')], { PATH: process.env['PATH'] });
  await server.waitFor('Ready to accept connections');
  return server;
}

function makeCertificate(folder: string): void {
  const files = ['-keyout', `${folder}/key.pem`, '-out', `${folder}/cert.pem`];
  const names = ['-subj', '/CN=redis.test', '-addext', 'subjectAltName=IP:127.0.0.1'];
  const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'];
  execFileSync('openssl', ['req', '-x509', '-days', '2', ...key, ...files, ...names], { stdio: 'pipe' });
}
