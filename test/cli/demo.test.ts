import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { ownPort } from '../harness/own-ports.js';
import { RunningProcess } from '../harness/running-process.js';
import { PASSWORD } from './borectl.js';
import { ADMIN_EMAIL, Platform } from './platform.js';

const DEMO = fileURLToPath(new URL('../../dist/local/demo.js', import.meta.url));

let platform: Platform;
let temporary: string;

beforeAll(async () => {
  platform = await Platform.start('127.0.7.4');
  temporary = await mkdtemp(path.join(tmpdir(), 'demo-test-'));
});

afterAll(async () => {
  await rm(temporary, { recursive: true, force: true });
  await platform?.stop();
});

function demo(env: NodeJS.ProcessEnv): RunningProcess {
  const { PATH, HOME } = process.env;
  return new RunningProcess(process.execPath, [DEMO], { PATH, HOME, TMPDIR: temporary, ...env });
}

const leftovers = () => readdir(temporary);
const openTunnels = () => platform.database.query(`SELECT id FROM tunnels WHERE state <> 'closed'`);
const openLogins = () => platform.database.query(`SELECT id FROM auth_sessions WHERE ended_at IS NULL`);

describe('the demonstration', () => {
  it('shows a tunnel step by step and leaves nothing behind', async () => {
    const login = { BORE_API: platform.backend.url, ADMIN_EMAIL, ADMIN_PASSWORD: PASSWORD };
    const shown = demo(login);
    expect(await shown.exitCode()).toBe(0);
    expect(shown.output()).toMatch(/^1\. The platform answers at http/);
    expect(shown.output()).toMatch(/http:\/\/127\.0\.7\.4:14\d{3}\/ answers: Hello from a local port/);
    expect(shown.output()).toMatch(/127\.0\.7\.4:14\d{3} takes no visitors any more\./);
    expect([await leftovers(), await openTunnels(), await openLogins()]).toEqual([[], [], []]);

    const interrupted = demo(login);
    await interrupted.waitFor('the public address is');
    interrupted.signal('SIGINT');
    expect([0, 130]).toContain(await interrupted.exitCode());
    expect([await leftovers(), await openTunnels(), await openLogins()]).toEqual([[], [], []]);
  });

  it('says in one sentence what it lacks', async () => {
    const url = `http://127.0.0.1:${await ownPort()}`;
    const nothing = demo({ BORE_API: url });
    expect(await nothing.exitCode()).toBe(1);
    expect(nothing.output()).toBe(
      `The platform does not run at ${url}: start it first with npm start, in another terminal.\n`,
    );
    const wrong = demo({ BORE_API: platform.backend.url, ADMIN_EMAIL, ADMIN_PASSWORD: 'not the password' });
    expect(await wrong.exitCode()).toBe(1);
    expect(wrong.output()).toMatch(/borectl login admin@example.com failed. .*\[INVALID_CREDENTIALS\]\.\n$/);
    expect(await leftovers()).toEqual([]);
  });
});
