import { chmod, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';

import type { TestProject } from 'vitest/node';

import { startEmbeddedPostgres } from '../../src/local/embedded-postgres.js';
import { ownPort } from './own-ports.js';
import { BINARIES_HOME } from '../../src/local/state-folders.js';
import { type DatabaseAddress, migrateUp } from '../../src/platform/database/migrations.js';
import { createTemplate } from './database.js';
import { scanFiles } from './secret-scan.js';
import { findUpstreamBore, type UpstreamBore } from './upstream-bore.js';

declare module 'vitest' {
  interface ProvidedContext {
    postgres: DatabaseAddress;
    /** A folder that is removed at the end of the run. */
    scratch: string;
    upstreamBore: UpstreamBore;
  }
}

/** One PostgreSQL for the whole run, in a folder that goes with it; and upstream's client, built before any test is timed. */
export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  const folder = await mkdtemp(path.join(tmpdir(), 'bore-test-'));
  await chmod(folder, 0o755);
  const address: DatabaseAddress = {
    host: '127.0.0.1',
    port: await ownPort(),
    database: 'postgres',
    user: 'postgres',
    password: 'test-only',
  };
  const postgres = await startEmbeddedPostgres({
    ...address,
    dataDir: path.join(folder, 'data'),
    binariesHome: BINARIES_HOME,
    // nothing here must outlive a power cut
    settings: ['fsync=off', 'synchronous_commit=off', 'full_page_writes=off', 'max_connections=400'],
  });
  await createTemplate(address, migrateUp);
  project.provide('postgres', address);
  project.provide('scratch', folder);
  project.provide('upstreamBore', await findUpstreamBore());
  return async () => {
    await postgres.stop();
    await rm(path.join(folder, 'data'), { recursive: true, force: true });
    // what bore-servers have kept on disk
    await scanFiles(folder);
    await rm(folder, { recursive: true, force: true });
  };
}
