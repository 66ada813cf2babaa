import { createHash } from 'node:crypto';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

/** The project's root; the same from `src` and from `dist`. */
export const PROJECT_DIR = fileURLToPath(new URL('../..', import.meta.url)).replace(/\/$/, '');

/** Where root keeps what another user must reach: PostgreSQL does not run as root. */
const ROOT_HOME = '/var/lib/bore-platform';

const isRoot = process.getuid?.() === 0;

/** Programs, shared by everything that this user starts from this machine or clone. */
export const BINARIES_HOME = isRoot ? ROOT_HOME : path.join(PROJECT_DIR, '.data');

/**
 * What `npm start` keeps between two starts: the database, the secrets, the logs. One for each clone; BORE_STATE_DIR names
 * another.
 */
export const STATE_DIR = path.resolve(process.env['BORE_STATE_DIR'] || defaultStateDir());

/** The same of `npm run cluster`. */
export const CLUSTER_DIR = path.join(STATE_DIR, 'cluster');

function defaultStateDir(): string {
  if (!isRoot) return path.join(PROJECT_DIR, '.data');
  const clone = createHash('sha256').update(PROJECT_DIR).digest('hex').slice(0, 8);
  return path.join(ROOT_HOME, `${path.basename(PROJECT_DIR)}-${clone}`);
}
