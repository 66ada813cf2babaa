import type { Config } from '../platform/config/config.js';
import { apiChecks } from './api-checks.js';
import { backupChecks } from './backup-checks.js';
import { boreServerChecks, registeredServers } from './bore-server-checks.js';
import { byHand } from './by-hand.js';
import { databaseChecks, liveBackends } from './database-checks.js';
import { DatabaseReader } from './database-reader.js';
import { fail, type Finding, type Group, reasonOf } from './finding.js';
import { monitoringChecks } from './monitoring-checks.js';
import { connectRedis, redisChecks } from './redis-checks.js';
import { settingsChecks } from './settings-checks.js';

/** Where to look, beside what the settings say. */
export interface Places {
  readonly api: string | undefined;
  readonly boreServers: readonly string[];
  readonly prometheus: string | undefined;
  readonly alertmanager: string | undefined;
  readonly backupDir: string | undefined;
  readonly backupHours: number;
}

/** A check, and what it came to. */
export interface Result extends Finding {
  readonly id: string;
  readonly group: string;
  readonly title: string;
}

/** Looks at an installation, and changes nothing. */
export async function preflight(config: Config, places: Places): Promise<Result[]> {
  const database = await DatabaseReader.connect(config).catch(asError);
  const redis = config.REDIS_ENABLED ? await connectRedis(config) : undefined;
  try {
    const reader = database instanceof Error ? undefined : database;
    const servers = reader && (await registeredServers(reader));
    const fleet = {
      backends: reader && (await liveBackends(reader)),
      boreServers: servers?.filter(({ state }) => state === 'online').length,
    };
    return await runAll([
      settingsChecks(config),
      databaseChecks(config, database),
      redisChecks(redis),
      await apiChecks(config, places.api),
      boreServerChecks(config, servers, places.boreServers),
      monitoringChecks(places, fleet),
      backupChecks(config, places.backupDir, places.backupHours),
      byHand(),
    ]);
  } finally {
    if (!(database instanceof Error)) await database.close();
    if (redis && !(redis instanceof Error)) redis.disconnect();
  }
}

/** One after the other: an installation that is in use should not notice. */
export async function runAll(groups: readonly Group[]): Promise<Result[]> {
  const results: Result[] = [];
  for (const { name, checks } of groups) {
    for (const { id, title, run } of checks) results.push({ id, group: name, title, ...(await settled(run)) });
  }
  return results;
}

async function settled(run: () => Finding | Promise<Finding>): Promise<Finding> {
  try {
    return await run();
  } catch (error) {
    return fail(`could not be checked: ${reasonOf(error)}`, 'run it again; if it stays, report it');
  }
}

const asError = (error: unknown): Error => (error instanceof Error ? error : new Error(String(error)));
