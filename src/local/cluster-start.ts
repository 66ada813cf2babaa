/** `npm run cluster`: the platform as it runs in production, on this machine, until Ctrl-C. */
import path from 'node:path';

import { Cluster } from './cluster.js';
import { clusterMessage } from './cluster-message.js';
import { clusterPorts, type ClusterSettings, readClusterSettings } from './cluster-settings.js';
import { stopLeftover } from './embedded-postgres.js';
import { runLauncher } from './launch.js';
import { checkPorts } from './start-ports.js';
import { newSecrets, readSecrets, type Secrets, writeSecrets } from './start-secrets.js';
import { CLUSTER_DIR } from './state-folders.js';

await runLauncher(CLUSTER_DIR, () => {
  const settings = readClusterSettings(process.env);
  return {
    prepare: async ({ afterCrash }, signal) => {
      // where the system could not end them with their launcher
      for (const name of ['postgres-replica', 'postgres']) await stopLeftover(path.join(CLUSTER_DIR, name));
      await checkPorts(clusterPorts(settings), { afterCrash, command: 'npm run cluster', signal });
      return secretsOfThisStart(settings);
    },
    make: (place) => new Cluster({ ...place, settings, stateDir: CLUSTER_DIR, environment: process.env }),
    announcement: 'Starting PostgreSQL and its replica, Redis, 3 backends, nginx and 3 bore-servers …',
    message: (secrets, shown) => clusterMessage({ settings, secrets, stateDir: CLUSTER_DIR, ...shown }),
  };
});

/** Those of the first start, at the database port of this one. */
async function secretsOfThisStart({ databasePort }: ClusterSettings): Promise<Secrets> {
  const known = await readSecrets(CLUSTER_DIR);
  if (known?.DB_PORT === databasePort) return known;
  const secrets = known ? { ...known, DB_PORT: databasePort } : newSecrets(databasePort);
  await writeSecrets(CLUSTER_DIR, secrets);
  return secrets;
}
