/** A client whose machine vanishes: its packets are lost, and no FIN or RST ever comes. */
import { afterAll, beforeAll, beforeEach, describe, expect, inject, it } from 'vitest';

import type { Api } from '../harness/api.js';
import { Platform } from '../harness/platform.js';
import { RemoteHost } from '../harness/remote-host.js';
import { RunningProcess } from '../harness/running-process.js';
import { connect, isRefused, readAll } from '../harness/sockets.js';
import { until } from '../harness/until.js';

const bore = inject('upstreamBore');
const reason = 'missing' in bore ? bore.missing : await RemoteHost.unavailable();

/** Serves endless bytes to each connection, on port 8080. */
const ENDLESS_SERVICE = `
  require('net').createServer((socket) => {
    const more = () => socket.writable && socket.write(Buffer.alloc(65536), () => setImmediate(more));
    socket.on('error', () => {});
    more();
  }).listen(8080, '127.0.0.1', () => console.log('serving'));`;

describe('a client whose machine vanishes', () => {
  let host: RemoteHost;
  let platform: Platform;
  let user: Api;
  const programs: RunningProcess[] = [];

  beforeEach(({ skip }) => {
    if (reason !== undefined) skip(reason);
  });

  beforeAll(async () => {
    if (reason !== undefined) return;
    host = await RemoteHost.create(1);
    platform = await Platform.start({
      address: host.ourAddress,
      controlPort: 7835,
      ports: { min: 10_000, max: 10_099 },
    });
    user = await platform.newUser();
  });

  afterAll(async () => {
    for (const program of programs) await program.kill9();
    await platform?.stop();
    await host?.delete();
  });

  function startThere(program: string, args: readonly string[]): RunningProcess {
    const started = new RunningProcess(...host.command(program, args), { PATH: process.env['PATH'] });
    programs.push(started);
    return started;
  }

  it('is noticed in 20 s, with data in flight: its visitors are cut, its tunnel is offline', async () => {
    await startThere(process.execPath, ['-e', ENDLESS_SERVICE]).waitFor('serving');
    const tunnel = await platform.open(user, { localPort: 8080 });
    const [, ...args] = tunnel.command.split(' ');
    await startThere('path' in bore ? bore.path : '', args).waitFor('listening at');
    const visitor = await connect(host.ourAddress, tunnel.port);
    let bytes = 0;
    visitor.on('data', (chunk: Buffer) => (bytes += chunk.length));
    // data to the client is in flight when it vanishes: on that connection the kernel retransmits for 15 minutes
    const upload = setInterval(() => visitor.write(Buffer.alloc(1024)), 10);
    await until(() => bytes > 1_000_000, 'the stream runs');

    await host.vanish();
    const began = performance.now();
    expect((await readAll(visitor)).how).toBe('reset');
    clearInterval(upload);
    await platform.server.waitFor('"reason":"client_lost"');
    await until(async () => (await platform.stateOf(tunnel)) === 'offline', 'the tunnel is offline');
    expect(performance.now() - began).toBeLessThan(20_000);
    expect(await isRefused(host.ourAddress, tunnel.port)).toBe(true);
    process.stdout.write(`a vanished client was noticed after ${((performance.now() - began) / 1000).toFixed(1)} s\n`);
  });

  it('is noticed although a visitor has come meanwhile, whose notice keeps TCP from probing', async () => {
    const other = await RemoteHost.create(2);
    const there = await Platform.start({
      address: other.ourAddress,
      controlPort: 7835,
      ports: { min: 10_000, max: 10_099 },
    });
    try {
      const owner = await there.newUser();
      const tunnel = await there.open(owner, { localPort: 8080 });
      const [, ...args] = tunnel.command.split(' ');
      const client = new RunningProcess(...other.command('path' in bore ? bore.path : '', args), {
        PATH: process.env['PATH'],
      });
      await client.waitFor('listening at');
      await other.vanish();
      const began = performance.now();
      expect((await readAll(await connect(other.ourAddress, tunnel.port))).how).toBe('reset');
      await there.server.waitFor('"reason":"client_lost"');
      await until(async () => (await there.stateOf(tunnel)) === 'offline', 'the tunnel is offline');
      expect(performance.now() - began).toBeLessThan(20_000);
      await client.kill9();
    } finally {
      await there.stop();
      await other.delete();
    }
  });
});
