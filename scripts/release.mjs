/**
 * `npm run release -- <version>`: makes the commit and the tag of a release (docs/releasing.md), and pushes nothing. Everything is checked
 * before anything is written.
 */
import { spawnSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const ROOT = fileURLToPath(new URL('..', import.meta.url));

/** Files that name the version of our images; package.json and package-lock.json are npm's to write. */
const NAMING_IMAGES = [
  'Dockerfile',
  'compose.yaml',
  'docs/containers.md',
  'k8s/overlays/development/kustomization.yaml',
  'k8s/overlays/production/kustomization.yaml',
];

function main([version]) {
  const manifest = JSON.parse(read('package.json'));
  if (!/^(0|[1-9]\d*)(\.(0|[1-9]\d*)){2}$/.test(version ?? '')) fail('usage: npm run release -- <major.minor.patch>');
  if (isLower(version, manifest.version)) fail(`${version} is lower than ${manifest.version}`);
  if (git('status', '--porcelain') !== '') fail('there are changes that are not committed');
  const tag = `v${version}`;
  if (git('tag', '--list', tag) !== '') fail(`${tag} is there already`);
  const changelog = read('CHANGELOG.md');
  const [, changes = ''] = /^## Unreleased\n([\s\S]*?)(?=^## |(?![\s\S]))/m.exec(changelog) ?? [];
  if (!/^- /m.test(changes)) fail('CHANGELOG.md has nothing below "## Unreleased"');

  // npm knows both of its files; the same version is the first release's
  run('npm', 'version', version, '--no-git-tag-version', '--allow-same-version');
  for (const file of NAMING_IMAGES) write(file, read(file).replaceAll(imageVersions(manifest.version), `$1${version}`));
  const today = new Date().toISOString().slice(0, 10);
  write('CHANGELOG.md', changelog.replace('## Unreleased\n', `## Unreleased\n\n## ${version} – ${today}\n`));

  git('commit', '--all', '--message', `release: ${version}`);
  git('tag', '--annotate', tag, '--cleanup=verbatim', '--message', `${tag}\n\n${changes.trim()}\n`);
  process.stdout.write(`${tag} is made here: git push --follow-tags\n`);
}

/** Where a version of ours stands: behind the name of an image, and in labels and tags. */
function imageVersions(version) {
  const escaped = version.replaceAll('.', String.raw`\.`);
  return new RegExp(String.raw`(bore-platform/[\w-]+:|newTag: |image\.version=")${escaped}\b`, 'g');
}

function isLower(a, b) {
  return a.localeCompare(b, 'en', { numeric: true }) < 0;
}

function git(...args) {
  return run('git', ...args).trim();
}

function run(program, ...args) {
  const { status, stdout, stderr, error } = spawnSync(program, args, { cwd: ROOT, encoding: 'utf8' });
  if (status !== 0) fail(`${program} ${args[0]} failed: ${(error?.message ?? stderr).trim()}`);
  return stdout;
}

function read(file) {
  return readFileSync(path.join(ROOT, file), 'utf8');
}

function write(file, text) {
  writeFileSync(path.join(ROOT, file), text);
}

function fail(sentence) {
  process.stderr.write(`release: ${sentence}\n`);
  process.exit(1);
}

main(process.argv.slice(2));
