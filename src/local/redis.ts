import { spawnSync } from 'node:child_process';
import { mkdir, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';

import { StartError } from './start-settings.js';

/** Answers in milliseconds. */
const ASK_TIMEOUT_MS = 5_000;

/** @throws StartError that says what to install */
export function checkRedisInstalled(): void {
  if (spawnSync('redis-server', ['--version'], { timeout: ASK_TIMEOUT_MS }).error)
    throw new StartError('redis-server is not installed: apt-get install redis-server');
}

interface RedisPlace {
  /** Made when it is missing. */
  readonly folder: string;
  readonly port: number;
  readonly password: string;
}

/**
 * Writes the configuration of a Redis on loopback, and returns the command that runs it. It keeps nothing on disk: all that backends
 * have there may be lost at any time.
 */
export async function redisCommand({ folder, port, password }: RedisPlace): Promise<[string, ...string[]]> {
  await mkdir(folder, { recursive: true, mode: 0o700 });
  const conf = path.join(folder, 'redis.conf');
  const lines = [
    'bind 127.0.0.1',
    `port ${port}`,
    `dir ${folder}`,
    'save ""',
    'appendonly no',
    // queues and state must not be evicted
    'maxmemory 256mb',
    'maxmemory-policy noeviction',
    `requirepass ${password}`,
  ];
  await rm(conf, { force: true });
  // on a command line the password would show in ps
  await writeFile(conf, `${lines.join('\n')}\n`, { mode: 0o600 });
  return ['redis-server', conf];
}
