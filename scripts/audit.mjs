/**
 * `npm run audit`: are the packages here those that were published, by the registry's signatures; and is something known against those that
 * we hand on, by its advisories? A registry that cannot be asked, or does not know, is said to be "not run", never to have passed.
 *
 * CI does the same. A signature that is bad or missing fails. An advisory does not: it appears over night, and no change is at fault. With
 * --release those of severity high or critical fail too.
 */
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';

const ROOT = fileURLToPath(new URL('..', import.meta.url));
/** Of each of the two questions, so that CI waits for a minute at most. */
const TIMEOUT_MS = 30_000;
/** Of npm's answer: some thousand packages, all of them bad. */
const OUTPUT_BYTES_MAX = 16 * 1024 * 1024;
/** Of a reason. */
const REASON_CHARS_MAX = 200;

const signatures = askSignatures();
const advisories = askAdvisories();
process.stdout.write(`audit: signatures ${signatures.said}\naudit: advisories ${advisories.said}\n`);
process.exitCode = signatures.failed || (advisories.failed && process.argv.includes('--release')) ? 1 : 0;

function askSignatures() {
  const { answer, reason } = npm('audit', 'signatures', '--json');
  if (!Array.isArray(answer?.invalid) || !Array.isArray(answer.missing))
    return { said: `not run: ${reason}`, failed: false };
  const bad = [
    ...answer.invalid.map(({ name, version }) => `${name}@${version} (not what was signed)`),
    ...answer.missing.map(({ name, version }) => `${name}@${version} (not signed)`),
  ];
  return bad.length > 0 ? { said: `FAILED: ${bad.join(', ')}`, failed: true } : { said: 'passed', failed: false };
}

function askAdvisories() {
  const { answer, reason } = npm('audit', '--omit=dev', '--json');
  const counts = answer?.metadata?.vulnerabilities;
  if (!counts) return { said: `not run: ${reason}`, failed: false };
  const known = Object.entries(counts).filter(([severity, count]) => severity !== 'total' && count > 0);
  if (known.length === 0) return { said: 'passed', failed: false };
  const list = known.map(([severity, count]) => `${count} ${severity}`).join(', ');
  return { said: `KNOWN: ${list}; npm audit --omit=dev names them`, failed: counts.high + counts.critical > 0 };
}

/** What npm answers as JSON, and why it is no answer if it is none. */
function npm(...args) {
  const quick = ['--fetch-retries=0', `--fetch-timeout=${TIMEOUT_MS}`];
  const own = process.env.npm_execpath;
  const [program, ...before] = own ? [process.execPath, own] : ['npm'];
  const { stdout, error } = spawnSync(program, [...before, ...args, ...quick], {
    cwd: ROOT,
    encoding: 'utf8',
    timeout: TIMEOUT_MS,
    killSignal: 'SIGKILL',
    maxBuffer: OUTPUT_BYTES_MAX,
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  if (error) return { reason: error.code === 'ETIMEDOUT' ? `no answer in ${TIMEOUT_MS / 1000} s` : error.message };
  let answer;
  try {
    answer = JSON.parse(stdout);
  } catch {
    return { reason: 'npm did not answer in JSON' };
  }
  const reason = answer.error?.summary || answer.message || answer.error?.detail || 'npm gave no answer and no reason';
  return { answer, reason: String(reason).replaceAll(/\s+/g, ' ').slice(0, REASON_CHARS_MAX) };
}
