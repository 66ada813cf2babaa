import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, writeFile } from 'node:fs/promises';
import https from 'node:https';
import path from 'node:path';

import { inject } from 'vitest';
import { z } from 'zod';

import type { DatabaseAddress } from '../../src/platform/database/migrations.js';
import { Api } from '../harness/api.js';
import { ownPort } from '../harness/own-ports.js';
import { RunningProcess } from '../harness/running-process.js';
import { until } from '../harness/until.js';

/** What others' programs show, by the job of prometheus.yml that asks it. Debian's packages are named as the programs. */
const PROGRAMS = {
  postgresql: 'prometheus-postgres-exporter',
  redis: 'prometheus-redis-exporter',
  nginx: 'prometheus-nginx-exporter',
  machines: 'prometheus-node-exporter',
  certificates: 'prometheus-blackbox-exporter',
} as const;
export const EXPORTERS = Object.fromEntries(Object.values(PROGRAMS).map((name) => [name, name]));

interface Watched {
  readonly database: DatabaseAddress;
  readonly redis: { readonly port: number; readonly password: string };
  /** Of nginx: `http://…/nginx_status`. */
  readonly nginx: string;
}

/** Exporters of a cluster's PostgreSQL, Redis and nginx, of this machine, and of a certificate. */
export class Exporters {
  /** `host:port` of each. */
  readonly addresses: Readonly<Record<keyof typeof PROGRAMS, string>>;
  private readonly running: RunningProcess[] = [];

  private constructor(
    /** A site with a certificate for two days, which the certificates' exporter is to ask. */
    readonly site: string,
    private readonly server: https.Server,
    first: number,
  ) {
    const [postgresql, redis, nginx, machines, certificates] = [0, 1, 2, 3, 4].map((i) => `127.0.0.1:${first + i}`);
    if (!postgresql || !redis || !nginx || !machines || !certificates) throw new Error('not reached');
    this.addresses = { postgresql, redis, nginx, machines, certificates };
  }

  static async start({ database, redis, nginx }: Watched): Promise<Exporters> {
    const folder = await mkdtemp(path.join(inject('scratch'), 'exporters-'));
    const server = await startSite(folder);
    const { port } = z.object({ port: z.int() }).parse(server.address());
    const exporters = new Exporters(`https://127.0.0.1:${port}/`, server, await ownPort(5));
    const { addresses } = exporters;
    const blackbox = path.join(folder, 'blackbox.yml');
    // the site signs its own certificate
    const modules = { http_2xx: { prober: 'http', http: { tls_config: { insecure_skip_verify: true } } } };
    await writeFile(blackbox, JSON.stringify({ modules }));
    const { host, port: databasePort, database: name, user, password } = database;
    exporters.run('postgresql', [`--web.listen-address=${addresses.postgresql}`], {
      DATA_SOURCE_NAME: `postgresql://${user}:${password}@${host}:${databasePort}/${name}?sslmode=disable`,
    });
    exporters.run('redis', [`--web.listen-address=${addresses.redis}`], {
      REDIS_ADDR: `redis://127.0.0.1:${redis.port}`,
      REDIS_PASSWORD: redis.password,
    });
    exporters.run('nginx', [`-web.listen-address=${addresses.nginx}`, `-nginx.scrape-uri=${nginx}`]);
    exporters.run('machines', [`--web.listen-address=${addresses.machines}`]);
    exporters.run('certificates', [`--web.listen-address=${addresses.certificates}`, `--config.file=${blackbox}`]);
    for (const [job, address] of Object.entries(addresses))
      await until(
        async () => (await new Api(`http://${address}`).get('/metrics').catch(() => undefined))?.status === 200,
        `the exporter of ${job} answers`,
        30_000,
      );
    return exporters;
  }

  async stop(): Promise<void> {
    this.server.close().closeAllConnections();
    // they have nothing to lose, and end with codes of their own on SIGTERM
    for (const exporter of this.running) await exporter.kill9();
  }

  private run(job: keyof typeof PROGRAMS, args: readonly string[], env: NodeJS.ProcessEnv = {}): void {
    this.running.push(new RunningProcess(PROGRAMS[job], args, { PATH: process.env['PATH'], ...env }));
  }
}

async function startSite(folder: string): Promise<https.Server> {
  const [key, cert] = [path.join(folder, 'key.pem'), path.join(folder, 'cert.pem')];
  const kind = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'];
  execFileSync('openssl', ['req', '-x509', '-days', '2', ...kind, '-keyout', key, '-out', cert, '-subj', '/CN=site'], {
    stdio: 'pipe',
  });
  const options = { key: await readFile(key), cert: await readFile(cert) };
  const server = https.createServer(options, (_request, response) => response.end('ok'));
  await once(server.listen(0, '127.0.0.1'), 'listening');
  return server;
}
