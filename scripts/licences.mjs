/**
 * `npm run licences`: whether we may use and hand on every package in package-lock.json under its licence. Fails with a list of those that
 * nobody has decided on: read the licence, and add it here with the reason, or do without the package.
 */
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

/** What any package may have: SPDX ids. All ask for nothing but that their text stays with the code, or not even that. */
const ALLOWED = [
  '0BSD',
  'Apache-2.0',
  'BSD-2-Clause',
  'BSD-3-Clause',
  'BlueOak-1.0.0',
  'CC0-1.0',
  'ISC',
  'MIT',
  'Unlicense',
  'Zlib',
];

/** What packages may have that only build and test use: we hand none of it on. */
const ALLOWED_FOR_DEVELOPMENT = [
  ...ALLOWED,
  // asks for the source of its own files alone, and only from who hands them on
  'MPL-2.0',
];

/** Packages that were decided on one by one: what they say, and why that is well. */
const DECIDED = {
  argparse: ['Python-2.0', 'permissive: Python’s own licence'],
  elkjs: [
    'EPL-2.0',
    'draws in Prisma’s studio, part of its command line; npm run package leaves that out, so nothing of it is handed on',
  ],
  '@visx/vendor': ['MIT and ISC', 'both permissive, written in a form of its own'],
  // say it in a form from before SPDX, or in their file alone
  'passport-strategy': [undefined, 'MIT: in its LICENSE'],
  pause: [undefined, 'MIT: in its Readme'],
  'seq-queue': [undefined, 'MIT: in its LICENSE'],
  'xmlhttprequest-ssl': [undefined, 'MIT: in its LICENSE; only tests use it'],
};

const lockFile = process.argv[2] ?? fileURLToPath(new URL('../package-lock.json', import.meta.url));
const { packages } = JSON.parse(readFileSync(lockFile, 'utf8'));
const installed = Object.entries(packages).filter(([place]) => place !== '');

const undecided = installed.flatMap(([place, { license, dev = false, version }]) => {
  const name = place.slice(place.lastIndexOf('node_modules/') + 'node_modules/'.length);
  if (DECIDED[name] && DECIDED[name][0] === license) return [];
  if (license !== undefined && isAllowed(license, dev ? ALLOWED_FOR_DEVELOPMENT : ALLOWED)) return [];
  return [`${name}@${version}: ${license ?? 'no licence is named'}${dev ? ' (development)' : ''}`];
});

if (undecided.length > 0) {
  process.stderr.write(`licences: not decided on, see scripts/licences.mjs:\n  ${undecided.join('\n  ')}\n`);
  process.exit(1);
}
process.stdout.write(`licences: ${installed.length} packages, all of them allowed\n`);

/** SPDX expressions without nested parentheses: one of those joined by OR will do, all of those joined by AND are needed. */
function isAllowed(expression, allowed) {
  return expression
    .replaceAll(/[()]/g, '')
    .split(' OR ')
    .some((choice) => choice.split(' AND ').every((id) => allowed.includes(id.trim())));
}
