/** One domain for many bore-servers: upstream's own client behind an nginx that knows nothing of bore. */
import { createHash, randomBytes, randomInt } from 'node:crypto';
import { once } from 'node:events';
import net, { type Socket } from 'node:net';

import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, inject, it } from 'vitest';

import type { Api } from '../harness/api.js';
import { Fleet, metric, portsOf } from '../harness/fleet.js';
import { nginxUnavailable, startNginx } from '../harness/nginx.js';
import type { OpenedTunnel } from '../harness/platform.js';
import { RunningProcess } from '../harness/running-process.js';
import { connect, readAll, readExactly } from '../harness/sockets.js';
import { until } from '../harness/until.js';
import { WireClient } from '../harness/wire-client.js';

/** The one that clients and visitors know: nginx is there. Upstream's client knows port 7835 only. */
const DOMAIN = '127.0.40.1';
const SERVERS = ['127.0.40.11', '127.0.40.12', '127.0.40.13'] as const;
/** A visitor's or a client's own address. */
const ELSEWHERE = '127.0.40.99';
const KIB = 1024;

const bore = inject('upstreamBore');
const reason = 'missing' in bore ? bore.missing : await nginxUnavailable();

describe('three bore-servers behind one nginx', () => {
  let fleet: Fleet;
  let nginx: RunningProcess;
  let user: Api;
  let localPort: number;
  const clients: RunningProcess[] = [];
  const sockets: Socket[] = [];
  /** Says what it has heard when the other has finished; before, it repeats each line at once. */
  const service = net.createServer({ allowHalfOpen: true }, (socket) => {
    const hash = createHash('sha256');
    const sent: Buffer[] = [];
    socket.on('error', () => undefined);
    socket.on('data', (chunk: Buffer) => {
      hash.update(chunk);
      sent.push(chunk);
      if (chunk.toString() === 'ping\n') socket.write('pong\n');
    });
    socket.on('end', () => socket.end(Buffer.concat([hash.digest(), ...sent])));
  });

  beforeEach(({ skip }) => {
    if (reason !== undefined) skip(reason);
  });

  beforeAll(async () => {
    if (reason !== undefined) return;
    fleet = await Fleet.start({
      name: DOMAIN,
      addresses: SERVERS,
      controlPort: 7835,
      serverEnv: { BORE_PROXY_PROTOCOL_FROM: `${DOMAIN}/32` },
    });
    const servers = SERVERS.map((address, i) => ({ address, portRange: portsOf(i) }));
    nginx = await startNginx({ address: DOMAIN, controlPort: 7835, servers });
    user = await fleet.platform.newUser();
    service.listen(0, '127.0.0.1');
    await once(service, 'listening');
    const address = service.address();
    localPort = typeof address === 'object' && address !== null ? address.port : 0;
  });

  afterEach(async () => {
    for (const socket of sockets.splice(0)) socket.destroy();
    for (const client of clients.splice(0)) await client.kill9();
  });

  afterAll(async () => {
    service.close();
    await nginx?.stop();
    await fleet?.stop();
  });

  function startBore(args: readonly string[]): RunningProcess {
    const client = new RunningProcess('path' in bore ? bore.path : '', args, { PATH: process.env['PATH'] });
    clients.push(client);
    return client;
  }

  /** Runs the very command that the API answered with. */
  async function carry(tunnel: OpenedTunnel): Promise<RunningProcess> {
    expect(tunnel.command).toContain(`--to ${DOMAIN}`);
    const [, ...args] = tunnel.command.split(' ');
    const client = startBore(args);
    await client.waitFor(`listening at ${DOMAIN}:${tunnel.port}`);
    return client;
  }

  /** A visitor says so much and finishes; whether what came back is what it said, whole. */
  async function exchange({ port }: OpenedTunnel, bytes: number): Promise<boolean> {
    const visitor = await connect(DOMAIN, port, ELSEWHERE);
    const said = randomBytes(bytes);
    visitor.end(said);
    const heard = await readAll(visitor);
    const digest = createHash('sha256').update(said).digest();
    return heard.how === 'finished' && heard.bytes.equals(Buffer.concat([digest, said]));
  }

  /** A visitor that stays. */
  async function stay({ port }: OpenedTunnel): Promise<Socket> {
    const visitor = await connect(DOMAIN, port);
    sockets.push(visitor);
    await ping(visitor);
    return visitor;
  }

  async function ping(visitor: Socket): Promise<void> {
    visitor.write('ping\n');
    expect((await readExactly(visitor, 5)).toString()).toBe('pong\n');
  }

  const passedOn = (number: number) => metric(fleet.server(number), 'bore_server_forwarded_connections');

  it('carry everybody: many visitors of a tunnel on each, whole and half-closed, whoever gets their connections', async () => {
    const tunnels = await Promise.all([1, 2, 3].map((number) => fleet.openAt(number, user, { localPort })));
    for (const tunnel of tunnels) await carry(tunnel);
    const visits = tunnels.flatMap((tunnel) =>
      Array.from({ length: 60 }, () => exchange(tunnel, randomInt(1, 512 * KIB))),
    );
    expect((await Promise.all(visits)).filter((whole) => !whole)).toEqual([]);
    const forwarded = await Promise.all(
      fleet.servers.map((server) => metric(server, 'bore_server_hand_overs_total{outcome="forwarded"}')),
    );
    for (const count of forwarded) expect(count).toBeGreaterThan(0);
    process.stdout.write(
      `${visits.length} visitors over one domain, passed on by each server: ${forwarded.join(', ')}\n`,
    );
  });

  it('find the tunnel of a client that names no port, and say upstream’s words to who may not', async () => {
    const tunnels = await Promise.all([1, 2, 3].map((number) => fleet.openAt(number, user, { localPort })));
    for (const tunnel of tunnels) {
      const client = startBore(['local', String(localPort), '--to', DOMAIN, '--secret', tunnel.token]);
      await client.waitFor(`listening at ${DOMAIN}:${tunnel.port}`);
      expect(await exchange(tunnel, 10 * KIB)).toBe(true);
    }
    const failure = async (secret: string, port: number) => {
      const client = startBore(['local', '1', '--to', DOMAIN, '--port', String(port), '--secret', secret]);
      expect(await client.exitCode()).toBe(1);
      return client.output();
    };
    for (const { port, token } of tunnels) {
      expect(await failure('tk_wrong', port)).toContain('invalid secret');
      expect(await failure(token, port + 1)).toContain('invalid secret');
      expect(await failure(token, 20_000)).toContain('client port number not in allowed range');
    }
  });

  it('know clients and visitors by their own addresses', async () => {
    const tunnel = await fleet.openAt(1, user, { localPort });
    const { database } = fleet.platform;
    // round and round: each of the servers gets one of them
    for (const last of [98, 97, 96]) {
      const client = await WireClient.connect({ address: DOMAIN, controlPort: 7835 }, `127.0.40.${last}`);
      sockets.push(client.socket);
      await client.greet(tunnel.token, { kind: 'hello', port: tunnel.port });
      expect(await client.next()).toEqual({ kind: 'hello', port: tunnel.port });
      const [row] = await database.query('SELECT client_address FROM tunnels WHERE id = $1', [tunnel.id]);
      expect(row).toEqual({ client_address: `127.0.40.${last}` });
    }
    await carry(tunnel);
    expect(await exchange(tunnel, KIB)).toBe(true);
    const visitors = () =>
      database.query('SELECT visitor_address FROM tunnel_connections WHERE tunnel_id = $1', [tunnel.id]);
    const [first] = await until(
      async () => ((await visitors()).length > 0 ? visitors() : undefined),
      'it is in the books',
    );
    expect(first).toEqual({ visitor_address: ELSEWHERE });
  });

  it('lose with one of them its own tunnels and what passed through it, and nothing else', async () => {
    const [lost, ...others] = await Promise.all([3, 1, 2].map((number) => fleet.openAt(number, user, { localPort })));
    if (!lost) throw new Error('no tunnel was opened');
    // a client whose control connection passes through the third server ends with it; here, none does
    for (const tunnel of others) {
      const spared = async () => {
        const client = await carry(tunnel);
        if ((await passedOn(3)) === 0) return true;
        await client.kill9();
        await until(async () => (await passedOn(3)) === 0, 'it is gone');
        return false;
      };
      await until(spared, 'a client that does not pass through s3');
    }
    const ownClient = await carry(lost);
    const own = await stay(lost);
    const streams: Socket[] = [];
    for (const tunnel of others) for (let i = 0; i < 9; i++) streams.push(await stay(tunnel));
    const through = await passedOn(3);
    expect(through).toBeGreaterThan(0);
    expect(through).toBeLessThan(streams.length);

    const ended = new Set<Socket>();
    for (const stream of streams) stream.once('end', () => ended.add(stream)).once('close', () => ended.add(stream));
    const ownEnd = readAll(own);
    await fleet.server(3).kill9();
    await ownEnd;
    await ownClient.exitCode();
    await until(() => ended.size === through, 'what passed through it has ended');
    for (const stream of streams) if (!ended.has(stream)) await ping(stream);
    for (const tunnel of others) for (let i = 0; i < 6; i++) expect(await exchange(tunnel, 100 * KIB)).toBe(true);
    expect(ended.size).toBe(through);
    process.stdout.write(
      `one of three servers killed: ${ended.size} of ${streams.length} streams of the others passed through it\n`,
    );

    await fleet.restart(3);
    await carry(lost);
    expect(await exchange(lost, 100 * KIB)).toBe(true);
    for (const stream of streams) if (!ended.has(stream)) await ping(stream);
  });
});
