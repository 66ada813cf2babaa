/** `npm run soak -- --minutes 10`: test/soak for as long as it is told; exits with its code. */
import { spawnSync } from 'node:child_process';
import { parseArgs } from 'node:util';

const { values } = parseArgs({ options: { minutes: { type: 'string', default: '10' } } });
const minutes = Number(values.minutes);
// a day: longer, and something is wrong with the number
if (!(minutes > 0 && minutes <= 1_440)) {
  process.stderr.write(`soak: --minutes must be a number above 0, at most 1440, not ${values.minutes}\n`);
  process.exit(1);
}
const { status } = spawnSync('node_modules/.bin/vitest', ['run', 'test/soak'], {
  stdio: 'inherit',
  env: { ...process.env, SOAK_MINUTES: String(minutes) },
});
process.exit(status ?? 1);
