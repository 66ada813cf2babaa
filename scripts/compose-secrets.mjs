/**
 * `npm run compose:prepare`: the secrets of compose.yaml, made once, in .data/compose, which nobody else can enter. What is there stays.
 *
 * Files that a container's own user must read have mode 0644: the folder is what keeps others out, and a mounted file keeps its mode.
 */
import { randomBytes } from 'node:crypto';
import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const FOLDER = process.argv[2] ?? fileURLToPath(new URL('../.data/compose', import.meta.url));

const secret = () => randomBytes(32).toString('base64url');

if (existsSync(path.join(FOLDER, 'backend.env'))) {
  process.stdout.write(`The secrets are there already: ${FOLDER}\n`);
} else {
  mkdirSync(FOLDER, { recursive: true, mode: 0o700 });
  const [database, redis, internal] = [secret(), secret(), secret()];
  write('db_password', 0o644, database);
  write(
    'redis.conf',
    0o644,
    [
      `requirepass ${redis}`,
      // what is evicted would be jobs and limits
      'maxmemory-policy noeviction',
      'maxmemory 256mb',
      // it may be lost at any time
      'save ""',
      'dir /tmp',
    ].join('\n'),
  );
  write('grafana_password', 0o644, secret());
  write('bore-server.env', 0o600, `BORE_BACKEND_API_KEY=${internal}`);
  // last: with it, all are there
  write(
    'backend.env',
    0o600,
    [
      `JWT_SECRET=${secret()}`,
      `INTERNAL_API_KEY=${internal}`,
      `TUNNEL_KEY_SECRET=${secret()}`,
      `DB_PASSWORD=${database}`,
      `REDIS_PASSWORD=${redis}`,
      'ADMIN_EMAIL=admin@example.com',
      `ADMIN_PASSWORD=${secret()}`,
    ].join('\n'),
  );
  process.stdout.write(`The secrets are in ${FOLDER}; the administrator’s login is in backend.env\n`);
}

function write(name, mode, text) {
  writeFileSync(path.join(FOLDER, name), `${text}\n`, { mode });
}
