/**
 * `npm run -s kubernetes:secrets -- --admin you@example.com | kubectl create -f -`: new secrets for an installation, as manifests.
 * `create` and not `apply`: it refuses where there are some already, and replacing TUNNEL_KEY_SECRET would lose the tunnels' keys.
 * `--database` adds the password of a database that no operator makes.
 */
import { randomBytes } from 'node:crypto';
import { parseArgs } from 'node:util';

import { stringify } from 'yaml';

const { values } = parseArgs({
  options: { admin: { type: 'string' }, database: { type: 'boolean', default: false } },
});

const random = () => randomBytes(32).toString('hex');
const secret = (name, stringData) => ({
  apiVersion: 'v1',
  kind: 'Secret',
  metadata: { name, namespace: 'bore-platform' },
  type: 'Opaque',
  stringData,
});
const secrets = [
  secret('bore-platform', {
    JWT_SECRET: random(),
    INTERNAL_API_KEY: random(),
    TUNNEL_KEY_SECRET: random(),
    REDIS_PASSWORD: random(),
    REDIS_SENTINEL_PASSWORD: random(),
    ...(values.admin && { ADMIN_EMAIL: values.admin, ADMIN_PASSWORD: random() }),
  }),
  ...(values.database ? [secret('bore-db-app', { password: random() })] : []),
];
process.stdout.write(secrets.map((object) => stringify(object)).join('---\n'));
