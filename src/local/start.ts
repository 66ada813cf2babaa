/** `npm start`: the whole platform on this machine, until Ctrl-C. */
import { freePort, isPortTaken } from './free-port.js';
import { runLauncher } from './launch.js';
import { Platform } from './platform.js';
import { readyMessage } from './start-message.js';
import { checkPorts, portsOf } from './start-ports.js';
import { newSecrets, readSecrets, type Secrets, writeSecrets } from './start-secrets.js';
import { readStartSettings } from './start-settings.js';
import { STATE_DIR } from './state-folders.js';

await runLauncher(STATE_DIR, () => {
  const settings = readStartSettings(process.env);
  return {
    prepare: async ({ afterCrash }, signal) => {
      await checkPorts(portsOf(settings), { afterCrash, command: 'npm start', signal });
      return secretsOfThisStart();
    },
    make: (place) => new Platform({ ...place, settings, stateDir: STATE_DIR, environment: process.env }),
    announcement: 'Starting PostgreSQL, the backend and a bore-server …',
    message: (secrets, shown) => readyMessage({ settings, secrets, stateDir: STATE_DIR, ...shown }),
  };
});

/** Those of the first start, with a database port that is free now. */
async function secretsOfThisStart(): Promise<Secrets> {
  const known = await readSecrets(STATE_DIR);
  if (known && !(await isPortTaken(known.DB_PORT, '127.0.0.1'))) return known;
  const port = await freePort();
  const secrets = known ? { ...known, DB_PORT: port } : newSecrets(port);
  await writeSecrets(STATE_DIR, secrets);
  return secrets;
}
