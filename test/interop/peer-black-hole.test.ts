/** A client whose machine vanishes, and whose connections pass through a server that does not own its tunnel. */
import { afterAll, beforeAll, beforeEach, describe, expect, inject, it } from 'vitest';

import { Fleet, metric } from '../harness/fleet.js';
import { RemoteHost } from '../harness/remote-host.js';
import { RunningProcess } from '../harness/running-process.js';
import { connect, readAll } from '../harness/sockets.js';
import { until } from '../harness/until.js';
import { hello } from '../harness/wire-client.js';

const bore = inject('upstreamBore');
const reason = 'missing' in bore ? bore.missing : await RemoteHost.unavailable();

/** Answers each connection, and stays. */
const SERVICE = `
  require('net').createServer((socket) => {
    socket.on('error', () => {});
    socket.write('hello');
  }).listen(8080, '127.0.0.1', () => console.log('serving'));`;

describe('a client whose machine vanishes behind another server', () => {
  let host: RemoteHost;
  let fleet: Fleet;
  const programs: RunningProcess[] = [];

  beforeEach(({ skip }) => {
    if (reason !== undefined) skip(reason);
  });

  beforeAll(async () => {
    if (reason !== undefined) return;
    host = await RemoteHost.create(3);
    fleet = await Fleet.start({
      name: host.ourAddress,
      addresses: ['127.0.43.1', host.ourAddress],
      controlPort: 7835,
    });
  });

  afterAll(async () => {
    for (const program of programs) await program.kill9();
    await fleet?.stop();
    await host?.delete();
  });

  it('is noticed in 20 s: its visitors are cut, its tunnel is offline and can be carried again', async () => {
    const startThere = (program: string, args: readonly string[]): RunningProcess => {
      const started = new RunningProcess(...host.command(program, args), { PATH: process.env['PATH'] });
      programs.push(started);
      return started;
    };
    await startThere(process.execPath, ['-e', SERVICE]).waitFor('serving');
    const user = await fleet.platform.newUser();
    const tunnel = await fleet.openAt(1, user, { localPort: 8080 });
    const [, ...args] = tunnel.command.split(' ');
    await startThere('path' in bore ? bore.path : '', args).waitFor('listening at');
    const passedOn = () => metric(fleet.server(2), 'bore_server_forwarded_connections');
    const visitor = await connect(fleet.server(1).address, tunnel.port);
    await until(async () => (await passedOn()) === 2, 'the client and its visitor pass through s2');

    await host.vanish();
    const began = performance.now();
    const end = await readAll(visitor);
    expect([end.bytes.toString(), end.how]).toEqual(['hello', 'reset']);
    await until(async () => (await fleet.platform.stateOf(tunnel)) === 'offline', 'the tunnel is offline', 20_000);
    await until(async () => (await passedOn()) === 0, 'nothing is left of it', 20_000);
    expect(performance.now() - began).toBeLessThan(20_000);
    const { client, answer } = await hello(fleet.server(2), tunnel.token, 0);
    expect(answer).toEqual({ kind: 'hello', port: tunnel.port });
    client.socket.destroy();
  });
});
