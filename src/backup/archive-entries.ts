/** What a dump holds, entry by entry, and which of it is restored. */
import type { Readable } from 'node:stream';

import type pg from 'pg';
import { z } from 'zod';

import { feed } from './archive.js';
import { BackupError } from './backup-error.js';
import type { PostgresTools } from './postgres-tools.js';

/** A line for each table, index and function: this platform has some hundreds, of a hundred bytes each. */
const LIST_BYTES_MAX = 16 * 1024 * 1024;

const Names = z.array(z.object({ name: z.string() }));

/** For `pg_restore --use-list`. */
export interface Selection {
  readonly list: string;
  /** Extensions that are not restored. */
  readonly leftOut: readonly string[];
}

/**
 * The entries of a dump, as `pg_restore --list` writes them: a line each, in latin1.
 * @throws BackupError
 */
export async function listEntries(archive: Readable, tools: PostgresTools, signal: AbortSignal): Promise<string> {
  const run = tools.start('pg_restore', ['--list'], signal);
  const read = async (): Promise<string> => {
    let list = '';
    for await (const chunk of run.stdout) {
      list += Buffer.from(chunk).toString('latin1');
      if (list.length > LIST_BYTES_MAX) throw new BackupError('the dump has more entries than any of this platform');
    }
    return list;
  };
  const [listed, fed, ended] = await Promise.allSettled([
    read().finally(() => run.stdout.destroy()),
    feed(archive, run.stdin, signal),
    run.done,
  ]);
  if (listed.status === 'rejected') throw listed.reason;
  if (ended.status === 'rejected') throw ended.reason;
  if (fed.status === 'rejected') throw fed.reason;
  return listed.value;
}

/**
 * Which extensions a dump may ask for: those that `client` may make, and those that are there and stay. What is in the schema
 * public goes with it.
 */
export async function possibleExtensions(client: pg.Client): Promise<ReadonlySet<string>> {
  const { rows } = await client.query(
    `SELECT v.name FROM pg_available_extension_versions v, pg_roles r
     WHERE r.rolname = current_user
       AND (r.rolsuper OR NOT v.superuser OR (v.trusted AND has_database_privilege(current_database(), 'CREATE')))
     UNION
     SELECT e.extname FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace WHERE n.nspname <> 'public'`,
  );
  return new Set(Names.parse(rows).map(({ name }) => name));
}

/**
 * Leaves out extensions that cannot be made: one line of them would undo the whole restore. Their descriptions go in any case: only
 * who owns an extension may set its own, and it comes with one.
 */
export function selectEntries(list: string, possible: ReadonlySet<string>): Selection {
  const leftOut: string[] = [];
  const kept = list.split('\n').filter((line) => {
    if (/^\d+; \d+ \d+ COMMENT - EXTENSION /.test(line)) return false;
    const extension = /^\d+; \d+ \d+ EXTENSION - (\S+)/.exec(line)?.[1];
    if (extension === undefined || possible.has(extension)) return true;
    leftOut.push(extension);
    return false;
  });
  return { list: kept.join('\n'), leftOut };
}
