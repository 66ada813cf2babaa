/** `npm run chaos`: test/chaos with all its faults; exits with its code. `npm test` has the short form. */
import { spawnSync } from 'node:child_process';

const { status } = spawnSync('node_modules/.bin/vitest', ['run', 'test/chaos'], {
  stdio: 'inherit',
  env: { ...process.env, CHAOS: 'long' },
});
process.exit(status ?? 1);
