import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdir, writeFile } from 'node:fs/promises';
import net from 'node:net';
import path from 'node:path';

import { afterAll, beforeAll, describe, expect, it, type TestContext } from 'vitest';

import {
  freePorts,
  Launcher,
  launcherEnvironment,
  nothingListens,
  type Ports,
  removeFolder,
  temporaryFolder,
} from './launcher.js';

let folder: string;
let ports: Ports;

beforeAll(async () => {
  folder = await temporaryFolder();
  ports = await freePorts();
});

afterAll(() => removeFolder(folder));

/** Starts it and returns what it said when it would not. */
async function refusal(extra: NodeJS.ProcessEnv): Promise<string> {
  const stateDir = path.join(folder, 'state');
  const launcher = new Launcher({ ...launcherEnvironment(stateDir, ports), ...extra });
  expect(await launcher.exitCode(), launcher.output()).toBe(1);
  expect(existsSync(path.join(stateDir, 'postgres'))).toBe(false);
  return launcher.output();
}

describe('a port that another program has', () => {
  it.each([
    ['the API’s', () => ports.api, 'PORT='],
    ['the clients’', () => ports.control, 'BORE_CONTROL_PORT='],
    ['the admin surface’s', () => ports.admin, 'BORE_ADMIN_PORT='],
    ['one of the tunnels’', () => ports.tunnels.min + 3, 'BORE_PORT_RANGE='],
  ])('%s: is named, with the variable that chooses another, and nothing is started', async (_name, port, variable) => {
    const other = net.createServer().listen(port(), '127.0.0.1');
    await once(other, 'listening');
    const said = await refusal({});
    other.close();
    expect(said).toContain(`Port ${port()} `);
    expect(said).toContain(`(${variable}`);
    expect(said.trim().split('\n')).toHaveLength(1);
    await nothingListens(path.join(folder, 'state'), ports);
  });
});

describe('a setting that is wrong', () => {
  it.each([
    [{ PORT: 'web' }, 'PORT must be a port number'],
    [{ PORT: '70000' }, 'PORT'],
    [{ BORE_PORT_RANGE: '10000' }, 'BORE_PORT_RANGE must look like 10000:10999'],
    [{ BORE_PORT_RANGE: '2:1' }, 'BORE_PORT_RANGE must not begin above its end'],
    [{ BORE_PORT_RANGE: '1024:60000' }, 'lies in BORE_PORT_RANGE'],
    [{ BORE_LOCAL_BIND: 'everywhere' }, 'BORE_LOCAL_BIND must be an IPv4 address'],
    [{ BORE_LOCAL_BIND: '192.0.2.1' }, 'this machine has no address 192.0.2.1'],
    [{ PORT: '7000', BORE_CONTROL_PORT: '7000' }, 'PORT and BORE_CONTROL_PORT are both 7000'],
  ])('%j', async (extra, sentence) => {
    const said = await refusal(extra);
    expect(said).toContain(sentence);
    expect(said.trim().split('\n')).toHaveLength(1);
  });
});

describe('a disk that is full', () => {
  it('before there is a database', async (context) => {
    const disk = mountSmallDisk(context, 'early', '8m');
    try {
      const stateDir = path.join(disk.folder, 'state');
      const launcher = new Launcher(launcherEnvironment(stateDir, ports));
      expect(await launcher.exitCode()).toBe(1);
      expect(launcher.output()).toMatch(/disk is full/);
      await nothingListens(stateDir, ports);
    } finally {
      disk.unmount();
    }
  });

  it('when there is no room for a secret', async (context) => {
    const disk = mountSmallDisk(context, 'secrets', '1m');
    try {
      await fill(disk.folder);
      const launcher = new Launcher(launcherEnvironment(path.join(disk.folder, 'state'), ports));
      expect(await launcher.exitCode()).toBe(1);
      expect(launcher.output()).toMatch(/^The disk is full: \S+ cannot be written\n$/);
    } finally {
      disk.unmount();
    }
  });

  it('at a later start, which finds its data again when there is room', async (context) => {
    const disk = mountSmallDisk(context, 'late', '200m');
    try {
      const stateDir = path.join(disk.folder, 'state');
      const first = new Launcher(launcherEnvironment(stateDir, ports));
      await first.ready();
      await first.stop();
      const ballast = await fill(disk.folder);
      const full = new Launcher(launcherEnvironment(stateDir, ports));
      expect(await full.exitCode(), full.output()).toBe(1);
      expect(full.output()).toMatch(/disk is full/);
      await nothingListens(stateDir, ports);
      await removeFolder(ballast);
      const again = new Launcher(launcherEnvironment(stateDir, ports));
      await again.ready();
      await again.stop();
    } finally {
      disk.unmount();
    }
  });
});

/** A file system of its own size. */
function mountSmallDisk(context: TestContext, name: string, size: string): { folder: string; unmount: () => void } {
  if (process.platform !== 'linux' || process.getuid?.() !== 0)
    context.skip('a small disk can be mounted by root on Linux only');
  const mountPoint = path.join(folder, name);
  execFileSync('mkdir', [mountPoint]);
  try {
    execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${size},mode=755`, 'tmpfs', mountPoint], { stdio: 'pipe' });
  } catch {
    context.skip('this root may not mount (a container without the right)');
  }
  return { folder: mountPoint, unmount: () => execFileSync('umount', ['-l', mountPoint]) };
}

/** Takes all the room that is left and returns the file that does. */
async function fill(disk: string): Promise<string> {
  const ballast = path.join(disk, 'ballast');
  await mkdir(disk, { recursive: true });
  await writeFile(ballast, '');
  for (let bytes = 1024 * 1024; bytes >= 1; bytes = Math.floor(bytes / 2)) {
    try {
      for (;;) await writeFile(ballast, Buffer.alloc(bytes), { flag: 'a' });
    } catch {
      // full for pieces of this size
    }
  }
  return ballast;
}
