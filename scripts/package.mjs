/**
 * `npm run package -- <program> <folder>`: what one program needs to run, and nothing else, in a folder of its own. It goes onto a
 * machine (docs/systemd.md) or into an image (Dockerfile). The packages are copies of those that package-lock.json installed here.
 *
 * A program is the compiled files that its entries import, and the packages that these import, with all that those depend on.
 */
import { chmodSync, cpSync, existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { builtinModules } from 'node:module';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

import ts from 'typescript';

const ROOT = fileURLToPath(new URL('..', import.meta.url));

const manifest = readJson('package.json');
const lock = readJson('package-lock.json').packages;

/** What each program is: entries, packages that no import names, and what it reads beside its code. */
const PROGRAMS = {
  backend: {
    entries: ['dist/main.js', 'dist/platform/database/migrate.js', 'dist/preflight/main.js'],
    // Nest loads some by name. prisma generates code: nothing that runs needs it
    packages: Object.keys(manifest.dependencies).filter((name) => name !== 'prisma'),
    folders: ['prisma'],
  },
  'bore-server': { entries: ['dist/bore-server/main.js'], packages: [], folders: [] },
  borectl: { entries: ['dist/cli/main.js'], packages: [], folders: [] },
};

/** For people, compilers and other databases; licences stay. */
const LEFT_OUT =
  /\.(map|d\.[cm]?ts|md|markdown|tsbuildinfo)$|\/\.bin$|\/query_compiler_\w+\.(cockroachdb|mysql|sqlite|sqlserver)\./;

function main([name, folder]) {
  const program = PROGRAMS[name];
  if (!program || folder === undefined) fail(`usage: npm run package -- ${Object.keys(PROGRAMS).join(' | ')} <folder>`);
  if (existsSync(folder) && readdirSync(folder).length > 0) fail(`${folder} is not empty`);
  if (!program.entries.every((entry) => existsSync(inRoot(entry)))) fail('nothing is built yet: npm run build');

  const files = new Set();
  const packages = new Set();
  for (const entry of program.entries) follow(entry, files, packages);
  const places = new Set();
  for (const each of [...packages, ...program.packages]) addPackage(each, '', places);

  mkdirSync(folder, { recursive: true });
  for (const each of [...files, ...places, ...program.folders]) copy(each, folder);
  for (const entry of program.entries) chmodSync(path.join(folder, entry), 0o755);
  const { version, license, type, engines } = manifest;
  writeFileSync(
    path.join(folder, 'package.json'),
    `${JSON.stringify({ name: `bore-platform-${name}`, version, license, private: true, type, engines }, null, 2)}\n`,
  );
}

/** Adds the compiled file, those that it imports, and the names of the packages that they import. */
function follow(file, files, packages) {
  if (files.has(file)) return;
  files.add(file);
  for (const { fileName: wanted } of ts.preProcessFile(readFileSync(inRoot(file), 'utf8')).importedFiles) {
    if (wanted.startsWith('.')) follow(path.join(path.dirname(file), wanted), files, packages);
    else if (!wanted.startsWith('node:') && !builtinModules.includes(wanted)) packages.add(packageOf(wanted));
  }
}

/** `@scope/name/file` and `name/file` without the file. */
function packageOf(specifier) {
  return specifier
    .split('/')
    .slice(0, specifier.startsWith('@') ? 2 : 1)
    .join('/');
}

/** Adds where a package lies that the one at `from` asks for, and what it asks for itself. */
function addPackage(name, from, places, { optional = false } = {}) {
  const place = find(name, from);
  if (place === undefined || !existsSync(inRoot(place))) {
    // of another kind of machine, or not wanted by us
    if (optional) return;
    fail(`${name} is not installed: npm ci`);
  }
  if (places.has(place)) return;
  places.add(place);
  const {
    dependencies = {},
    optionalDependencies = {},
    peerDependencies = {},
    peerDependenciesMeta = {},
  } = lock[place];
  for (const each of Object.keys(dependencies)) addPackage(each, place, places);
  for (const each of Object.keys(optionalDependencies)) addPackage(each, place, places, { optional: true });
  for (const each of Object.keys(peerDependencies)) {
    if (!peerDependenciesMeta[each]?.optional) addPackage(each, place, places);
  }
}

/** As Node looks for it: below the package that asks, then further out. */
function find(name, from) {
  for (let folder = from; ; folder = folder.slice(0, Math.max(0, folder.lastIndexOf('node_modules/') - 1))) {
    const place = path.join(folder, 'node_modules', name);
    if (lock[place]) return place;
    if (folder === '') return undefined;
  }
}

function copy(place, folder) {
  const nested = inRoot(path.join(place, 'node_modules'));
  cpSync(inRoot(place), path.join(folder, place), {
    recursive: true,
    // nested packages are copied by themselves, where they are needed
    filter: (source) => source !== nested && !LEFT_OUT.test(source),
  });
}

function readJson(file) {
  return JSON.parse(readFileSync(inRoot(file), 'utf8'));
}

function inRoot(file) {
  return path.join(ROOT, file);
}

function fail(sentence) {
  process.stderr.write(`package: ${sentence}\n`);
  process.exit(1);
}

main(process.argv.slice(2));
