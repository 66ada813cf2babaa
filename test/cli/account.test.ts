import { access, stat, utimes, writeFile } from 'node:fs/promises';
import path from 'node:path';

import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { ownPort } from '../harness/own-ports.js';
import { PASSWORD } from './borectl.js';
import { credentialsOf, Platform } from './platform.js';

let platform: Platform;

beforeAll(async () => {
  platform = await Platform.start('127.0.7.1');
});

afterAll(async () => {
  await platform?.stop();
});

describe('an account', () => {
  it('is made, entered and left; its credentials are for their owner’s eyes only', async () => {
    const person = await platform.newPerson();
    expect(await person.run(['ls'])).toMatchObject({
      code: 1,
      stdout: '',
      stderr: `borectl: You are not logged in at ${platform.backend.url}: run borectl login <email>\n`,
    });
    expect(await person.run(['signup', 'ada@example.com'])).toEqual({
      code: 0,
      stdout: `Signed up at ${platform.backend.url} as ada@example.com.\n`,
      stderr: '',
    });
    expect((await stat(person.credentialsFile)).mode & 0o777).toBe(0o600);
    expect((await stat(path.dirname(person.credentialsFile))).mode & 0o777).toBe(0o700);
    expect(await person.run(['ls'])).toMatchObject({ code: 0, stdout: 'No open tunnels.\n' });

    const api = await platform.apiOf(person);
    expect(await person.run(['logout'])).toMatchObject({ code: 0, stderr: '' });
    expect((await api.get('/api/v1/auth/me')).status).toBe(401);
    expect((await person.credentials()).platforms).toEqual({});
    expect((await person.run(['ls'])).code).toBe(1);
    expect((await person.run(['logout'])).code).toBe(1);
    expect((await person.run(['login', 'ADA@example.com'])).code).toBe(0);
    expect((await person.run(['ls'])).code).toBe(0);
  });

  it('is entered with a password from a pipe, at the first of several platforms as at the second', async () => {
    const person = await platform.newPerson();
    // the same backend under another name
    const other = platform.backend.url.replace('127.0.0.1', 'localhost');
    expect(await person.run(['signup', 'pipe@example.com'], { input: `${PASSWORD}\r\n` })).toMatchObject({ code: 0 });
    expect(await person.run(['--api', `${other}/`, 'login', 'pipe@example.com'], { input: PASSWORD })).toMatchObject({
      code: 0,
      stdout: `Logged in at ${other} as pipe@example.com.\n`,
    });
    expect(Object.keys((await person.credentials()).platforms)).toEqual([platform.backend.url, other]);
    expect((await person.run(['logout'])).code).toBe(0);
    expect((await person.run(['ls'])).code).toBe(1);
    expect((await person.run(['ls', '--api', other])).code).toBe(0);
  });

  it('is not entered with a wrong password, none, or too long a one', async () => {
    const person = await platform.newUser();
    const { email } = await credentialsOf(person);
    expect(await person.run(['login', email], { input: 'wrong\n' })).toEqual({
      code: 1,
      stdout: '',
      stderr: 'borectl: E-mail or password is wrong [INVALID_CREDENTIALS].\n',
    });
    expect(await person.run(['login', email], { input: '' })).toMatchObject({
      code: 1,
      stderr: expect.stringMatching(/No password/),
    });
    expect(await person.run(['login', email], { input: 'x'.repeat(5_000_000) })).toMatchObject({ code: 1 });
    expect(await person.run(['signup', 'short@example.com'], { input: 'short\n' })).toMatchObject({
      code: 1,
      stderr: expect.stringMatching(/password: .*12.*\[VALIDATION_FAILED\]\.\n$/),
    });
    expect((await person.run(['signup', email])).stderr).toBe(
      'borectl: An account with this e-mail exists [EMAIL_TAKEN].\n',
    );
    // who was logged in still is
    expect((await person.run(['ls'])).code).toBe(0);
  });

  it('is not there when the API is not', async () => {
    const person = await platform.newPerson();
    const api = `http://127.0.0.1:${await ownPort()}`;
    expect(await person.run(['login', 'ada@example.com', '--api', api])).toEqual({
      code: 1,
      stdout: '',
      stderr: `borectl: The platform at ${api} cannot be reached: connection refused.\n`,
    });
    const notOurs = platform.server.adminUrl;
    expect(await person.run(['login', 'ada@example.com', '--api', notOurs])).toMatchObject({
      code: 1,
      stderr: `borectl: The platform at ${notOurs} answered with HTTP status 404 and no reason.\n`,
    });
  });
});

describe('an access token that has expired', () => {
  it('is refreshed once by many processes at once, and the login lives on', async () => {
    const person = await platform.newUser();
    const before = await credentialsOf(person);
    await person.expireAccessToken();
    const results = await Promise.all(Array.from({ length: 6 }, () => person.run(['ls'])));
    expect(results.map(({ code, stderr }) => ({ code, stderr }))).toEqual(
      Array.from({ length: 6 }, () => ({ code: 0, stderr: '' })),
    );
    const after = await credentialsOf(person);
    expect(after.refreshToken).not.toBe(before.refreshToken);
    const [tokens] = await platform.database.query(
      `SELECT count(*)::int AS all, count(spent_at)::int AS spent FROM refresh_tokens t
       JOIN auth_sessions s ON s.id = t.session_id JOIN users u ON u.id = s.user_id WHERE u.email = $1`,
      [before.email],
    );
    expect(tokens).toEqual({ all: 2, spent: 1 });
    expect((await person.run(['ls'])).code).toBe(0);
    await expect(access(`${person.credentialsFile}.lock`)).rejects.toThrow('ENOENT');
  });

  it('is refreshed although a process died holding the lock', async () => {
    const person = await platform.newUser();
    await person.expireAccessToken();
    const lock = `${person.credentialsFile}.lock`;
    await writeFile(lock, '1\n');
    const longAgo = new Date(Date.now() - 31_000);
    await utimes(lock, longAgo, longAgo);
    const results = await Promise.all(Array.from({ length: 4 }, () => person.run(['ls'])));
    expect(results.map(({ code, stderr }) => ({ code, stderr }))).toEqual(
      Array.from({ length: 4 }, () => ({ code: 0, stderr: '' })),
    );
  });

  it('is not refreshed when the login has ended meanwhile', async () => {
    const person = await platform.newUser();
    const { email } = await credentialsOf(person);
    await (await platform.apiOf(person)).post('/api/v1/auth/logout', undefined);
    expect(await person.run(['ls'])).toMatchObject({
      code: 1,
      stderr: `borectl: Your login at ${platform.backend.url} has ended: run borectl login ${email}\n`,
    });
    expect((await person.run(['logout'])).code).toBe(0);
  });
});

describe('the command line', () => {
  it('is refused with exit code 2 when it is not understood', async () => {
    const person = await platform.newPerson();
    for (const args of [
      [],
      ['nonsense'],
      ['open'],
      ['open', '0'],
      ['open', '65536'],
      ['open', '80x'],
      ['open', '80', '--ttl', '-1'],
      ['ls', '--nonsense'],
      ['ls', 'more'],
      ['ls', '--api', 'ftp://127.0.0.1'],
      ['ls', '--api', 'http://user:secret@127.0.0.1'],
      ['rm'],
    ]) {
      expect({ args, code: (await person.run(args)).code }).toEqual({ args, code: 2 });
    }
    expect(await person.run(['--help'])).toMatchObject({ code: 0, stdout: expect.stringMatching(/Usage: borectl/) });
    expect(await person.run(['open', '--help'])).toMatchObject({
      code: 0,
      stdout: expect.stringMatching(/--local-host/),
    });
    expect((await person.run(['ls'], { env: { BORE_API: 'nonsense' } })).code).toBe(2);
  });
});
