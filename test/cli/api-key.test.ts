import { access } from 'node:fs/promises';
import { createServer, type Server } from 'node:net';
import { once } from 'node:events';

import { afterAll, beforeAll, expect, it } from 'vitest';

import { connect } from '../harness/sockets.js';
import { ownPort } from '../harness/own-ports.js';
import { credentialsOf, Platform } from './platform.js';

let platform: Platform;
let local: Server;
let localPort: number;

beforeAll(async () => {
  platform = await Platform.start('127.0.7.9');
  localPort = await ownPort();
  // a reset is one way for borectl to end its side
  local = createServer((socket) => socket.on('error', () => undefined).end('hello')).listen(localPort, '127.0.0.1');
  await once(local, 'listening');
});

afterAll(async () => {
  local?.close();
  await platform?.stop();
});

/** A key of a new account. */
async function newKey(...scopes: string[]): Promise<string> {
  const owner = await platform.apiOf(await platform.newUser());
  return (await owner.post('/api/v1/auth/api-keys', { name: 'ci', scopes })).body.key;
}

it('opens, lists and removes tunnels without a login, and stores nothing', async () => {
  const program = await platform.newPerson();
  program.shell['BORE_API_KEY'] = await newKey('tunnels:read', 'tunnels:write');
  const open = await program.open(localPort, '--name', 'by-key');
  const visitor = await connect(open.host, open.port);
  visitor.on('error', () => undefined);
  expect(String((await once(visitor, 'data'))[0])).toBe('hello');
  expect((await program.run(['ls'])).stdout).toContain('by-key');
  expect(await program.run(['rm', 'by-key'])).toMatchObject({ code: 0, stderr: '' });
  await open.waitFor('The tunnel is closed: somebody has deleted it');
  await expect(access(program.credentialsFile)).rejects.toThrow('ENOENT');
});

it('is told what its key lacks, and when it does not work', async () => {
  const program = await platform.newPerson();
  program.shell['BORE_API_KEY'] = await newKey('tunnels:read');
  expect(await program.run(['open', String(localPort)])).toEqual({
    code: 1,
    stdout: '',
    stderr: 'borectl: This needs the scope tunnels:write [SCOPE_MISSING].\n',
  });
  for (const [key, sentence] of [
    [
      `${program.shell['BORE_API_KEY']}x`,
      `The API key in BORE_API_KEY does not work at ${program.api}, or not any more.`,
    ],
    ['two\nlines', 'BORE_API_KEY does not hold an API key.'],
  ]) {
    program.shell['BORE_API_KEY'] = key;
    expect(await program.run(['ls'])).toEqual({ code: 1, stdout: '', stderr: `borectl: ${sentence}\n` });
  }
});

it('comes before a login that is stored, which stays as it was', async () => {
  const person = await platform.newUser();
  const before = await credentialsOf(person);
  const mine = await platform.apiOf(person);
  await mine.post('/api/v1/tunnels', { name: 'mine' });
  person.shell['BORE_API_KEY'] = await newKey('tunnels:read');
  expect((await person.run(['ls'])).stdout).toBe('No open tunnels.\n');
  expect(await credentialsOf(person)).toEqual(before);
  expect((await person.run(['logout'])).code).toBe(0);
  expect((await mine.get('/api/v1/auth/me')).status).toBe(401);
});
