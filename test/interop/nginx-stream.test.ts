/** `deploy/nginx/stream.conf` with PROXY protocol: who a visitor and a client are is known behind it, at both ends of the tunnel. */
import { mkdtemp, readFile, writeFile } from 'node:fs/promises';
import type { Socket } from 'node:net';
import path from 'node:path';

import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, inject, it } from 'vitest';

import { findNginx } from '../../src/local/nginx.js';
import { PROJECT_DIR } from '../../src/local/state-folders.js';
import type { Api } from '../harness/api.js';
import { Fleet, portsOf } from '../harness/fleet.js';
import { nginxUnavailable, startNginx } from '../harness/nginx.js';
import { RunningProcess } from '../harness/running-process.js';
import { connect, readAll } from '../harness/sockets.js';
import { until } from '../harness/until.js';
import { accept, WireClient } from '../harness/wire-client.js';

/** nginx. */
const DOMAIN = '127.45.0.1';
const SERVER = '127.45.0.11';
/** Another balancer, before nginx. */
const OUTER = '127.45.0.2';
const [VISITOR, CLIENT] = ['127.45.0.98', '127.45.0.99'];
const CONTROL_PORT = 7835;

const reason = await nginxUnavailable();

describe('nginx in front of a bore-server', () => {
  let fleet: Fleet;
  let nginx: RunningProcess;
  let user: Api;
  const sockets: Socket[] = [];

  beforeEach(({ skip }) => {
    if (reason !== undefined) skip(reason);
  });

  beforeAll(async () => {
    if (reason !== undefined) return;
    fleet = await Fleet.start({
      name: DOMAIN,
      addresses: [SERVER],
      controlPort: CONTROL_PORT,
      serverEnv: { BORE_PROXY_PROTOCOL_FROM: `${DOMAIN}/32` },
    });
    nginx = await startNginx(place());
    user = await fleet.platform.newUser();
  });

  afterEach(() => sockets.splice(0).forEach((socket) => socket.destroy()));

  afterAll(async () => {
    await nginx?.stop();
    await fleet?.stop();
  });

  // the file's three servers are one: it has the ports of the first
  const place = () => ({
    address: DOMAIN,
    controlPort: CONTROL_PORT,
    servers: [0, 1, 2].map((i) => ({ address: SERVER, portRange: portsOf(i) })),
  });

  it.each([
    ['v1', 'latin1', /^PROXY TCP4 127\.45\.0\.98 127\.45\.0\.11 \d+ 10\d\d\d\r\nfrom the visitor$/],
    ['v2', 'hex', /^0d0a0d0a000d0a515549540a2111000c7f2d00627f2d000b.{8}66726f6d207468652076697369746f72$/],
  ] as const)(
    'tells the service behind a tunnel who visits (%s), and the books too',
    async (version, encoding, said) => {
      const tunnel = await fleet.openAt(1, user, { proxyProtocol: version });
      const through = { address: DOMAIN, controlPort: CONTROL_PORT };
      const client = await WireClient.connect(through, CLIENT);
      sockets.push(client.socket);
      await client.greet(tunnel.token, { kind: 'hello', port: tunnel.port });
      expect(await client.next()).toEqual({ kind: 'hello', port: tunnel.port });

      const visitor = await connect(DOMAIN, tunnel.port, VISITOR);
      visitor.end('from the visitor');
      const message = await client.next();
      if (message.kind !== 'connection') throw new Error(`expected a visitor, got ${message.kind}`);
      const stream = await accept(through, tunnel.token, message.id);
      stream.end();
      expect((await readAll(stream)).bytes.toString(encoding)).toMatch(said);
      await readAll(visitor);

      const { database } = fleet.platform;
      const [row] = await database.query('SELECT client_address FROM tunnels WHERE id = $1', [tunnel.id]);
      expect(row).toEqual({ client_address: CLIENT });
      const written = async () =>
        (await database.query('SELECT visitor_address FROM tunnel_connections WHERE tunnel_id = $1', [tunnel.id]))[0];
      expect(await until(written, 'it is in the books')).toEqual({ visitor_address: VISITOR });
    },
  );

  it('believes another balancer before it, where the file says so', async () => {
    await nginx.stop();
    const inner = await mkdtemp(path.join(inject('scratch'), 'nginx-inner-'));
    const conf = (await readFile(path.join(PROJECT_DIR, 'deploy/nginx/stream.conf'), 'utf8'))
      .replaceAll(/10\.0\.0\.1[123]/g, SERVER)
      // as docs/nginx.md has it
      .replaceAll(/listen (\S+) so_keepalive/g, `listen ${DOMAIN}:$1 proxy_protocol so_keepalive`)
      .replace('stream {', `stream {\n  set_real_ip_from ${OUTER};\n  proxy_bind ${DOMAIN};`);
    await writeFile(path.join(inner, 'stream.conf'), conf);
    const installation = await findNginx(process.env['PATH']);
    const main = path.join(inner, 'nginx.conf');
    await writeFile(
      main,
      `${installation.loadStream} daemon off; pid ${inner}/pid; error_log stderr notice;
      events { worker_connections 2048; } include ${inner}/stream.conf;`,
    );
    const args = ['-e', 'stderr', '-p', inner, '-c', main];
    nginx = new RunningProcess('nginx', args, { PATH: installation.path });
    await nginx.waitFor('start worker process ');

    const tunnel = await fleet.openAt(1, user);
    // a stranger may say what it likes
    for (const [from, known] of [
      [OUTER, '192.0.2.7'],
      [CLIENT, CLIENT],
    ] as const) {
      const client = await WireClient.connect({ address: DOMAIN, controlPort: CONTROL_PORT }, from);
      sockets.push(client.socket);
      client.send(`PROXY TCP4 192.0.2.7 ${DOMAIN} 1024 ${CONTROL_PORT}\r\n`);
      await client.greet(tunnel.token, { kind: 'hello', port: tunnel.port });
      expect(await client.next()).toEqual({ kind: 'hello', port: tunnel.port });
      const { database } = fleet.platform;
      const [row] = await database.query('SELECT client_address FROM tunnels WHERE id = $1', [tunnel.id]);
      expect(row).toEqual({ client_address: known });
    }
  });
});
