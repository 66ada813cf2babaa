/**
 * `npm run -s sbom`: what production needs, as CycloneDX on stdout, by `npm sbom` from package-lock.json. Not with its --omit=dev: that
 * leaves out what tests ask for too, such as all of pg's packages.
 */
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';

/** Some hundred packages, of a few KB each. */
const OUTPUT_BYTES_MAX = 64 * 1024 * 1024;

const npm = process.env.npm_execpath;
const [program, ...before] = npm ? [process.execPath, npm] : ['npm'];
const { status, stdout, stderr, error } = spawnSync(
  program,
  [...before, 'sbom', '--package-lock-only', '--sbom-format=cyclonedx'],
  { cwd: fileURLToPath(new URL('..', import.meta.url)), encoding: 'utf8', maxBuffer: OUTPUT_BYTES_MAX },
);
if (status !== 0) {
  process.stderr.write(`sbom: ${error?.message ?? stderr}\n`);
  process.exit(1);
}

const bill = JSON.parse(stdout);
const isForDevelopment = ({ properties = [] }) =>
  properties.some(({ name, value }) => name === 'cdx:npm:package:development' && value === 'true');
const left = new Set(bill.components.filter(isForDevelopment).map((component) => component['bom-ref']));
bill.components = bill.components.filter((component) => !left.has(component['bom-ref']));
bill.dependencies = bill.dependencies
  .filter(({ ref }) => !left.has(ref))
  .map(({ ref, dependsOn = [] }) => ({ ref, dependsOn: dependsOn.filter((each) => !left.has(each)) }));
process.stdout.write(`${JSON.stringify(bill, null, 2)}\n`);
