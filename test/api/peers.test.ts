/** Bore-servers that share a public name, as the control plane sees them. */
import { randomUUID } from 'node:crypto';

import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { answerChallenge, keyOfSecret, randomUuid } from '../../src/protocol/challenge.js';
import { INTERNAL_KEY_HEADER, type RegisterRequest } from '../../src/protocol/plane-api.js';
import { type Answer, Api } from '../harness/api.js';
import { SECRETS } from '../harness/backend.js';
import { heldUp } from '../harness/held-up.js';
import { ControlPlane } from './control-plane.js';
import { PlaneClient } from './plane-client.js';
import { inTransaction, somebodyWaits } from './transaction.js';

let plane: ControlPlane;
let internal: Api;
const planes: PlaneClient[] = [];

beforeAll(async () => {
  plane = await ControlPlane.start({ backends: 2, env: { PLAN_FREE_TUNNELS: '2000', MAX_TUNNELS_PER_SERVER: '2000' } });
  internal = new Api(plane.url(), { [INTERNAL_KEY_HEADER]: SECRETS.INTERNAL_API_KEY });
});

afterAll(async () => {
  for (const server of planes) server.close();
  await plane?.stop();
});

/** A name that no other test uses. */
const newName = () => `${randomUUID()}.test`;

/** A bore-server that is not registered yet; `i`: the backend that it asks. */
function newServer(min: number, max: number, i = 0): PlaneClient {
  const server = new PlaneClient(plane.url(i), SECRETS.INTERNAL_API_KEY, `s-${randomUUID()}`, { min, max });
  planes.push(server);
  return server;
}

const join = (server: PlaneClient, host: string, more: Partial<RegisterRequest> = {}) =>
  server.register({ host, peer: { host: '10.0.0.7', port: 7837 }, ...more });

const loseLease = ({ serverId }: PlaneClient) =>
  plane.database.query(`UPDATE servers SET lease_until = now() - interval '1 second' WHERE id = $1`, [serverId]);

let sequence = 0;
async function directory({ serverId, instanceId }: PlaneClient, peersVersion: string): Promise<Answer['body']> {
  const { status, body } = await internal.post(`/api/v1/internal/servers/${serverId}/heartbeat`, {
    instanceId,
    sequence: ++sequence,
    draining: false,
    load: { connections: 0, bandwidthMbps: 0 },
    sessions: [],
    ended: [],
    peersVersion,
  });
  expect(status).toBe(200);
  return body.peers;
}

function locate({ serverId, instanceId }: PlaneClient, secret: string): Promise<Answer> {
  const challenge = randomUuid();
  const tag = answerChallenge(keyOfSecret(secret), challenge);
  return internal.post('/api/v1/internal/tunnels/locate', { serverId, instanceId, challenge, tag });
}

describe('servers of one name', () => {
  it('hear of each other, and again only when something has changed; nobody else does', async () => {
    const [a, b, stranger] = [newServer(10_000, 10_099), newServer(10_100, 10_199), newServer(10_200, 10_299)];
    const name = newName();
    expect((await join(a, name)).body.peers.peers).toEqual([]);
    await join(stranger, newName());
    // names of hosts have no case
    const { body } = await join(b, name.toUpperCase(), { peer: { host: '10.0.0.8', port: 7000 } });
    const ofB = { serverId: b.serverId, host: '10.0.0.8', port: 7000, portRange: { min: 10_100, max: 10_199 } };
    const ofA = { serverId: a.serverId, host: '10.0.0.7', port: 7837, portRange: { min: 10_000, max: 10_099 } };
    expect(body.peers.peers).toEqual([ofA]);
    const heard = await directory(a, '');
    expect(heard.peers).toEqual([ofB]);
    expect(await directory(a, heard.version)).toBeUndefined();
    expect((await directory(stranger, '')).peers).toEqual([]);
    // one that is away may have tunnels that its clients come back to
    await loseLease(b);
    expect(await directory(a, heard.version)).toBeUndefined();
    // it is the name's only server now
    await b.register({ host: name });
    expect((await directory(a, heard.version)).peers).toEqual([]);
    expect((await a.beat({ sequence: ++sequence })).body).not.toHaveProperty('peers');
  });

  it('cannot have the same ports: of many at once one is registered, over all backends', async () => {
    const name = newName();
    const servers = Array.from({ length: 10 }, (_, i) => newServer(10_000 + i, 10_100 - i, i));
    const answers = await Promise.all(servers.map((server) => join(server, name)));
    const refused = answers.filter(({ status }) => status === 409);
    expect([answers.filter(({ status }) => status === 200).length, refused.length]).toEqual([1, 9]);
    expect(new Set(refused.map(({ body }) => body.code))).toEqual(new Set(['PORT_RANGE_TAKEN']));
    const rows = await plane.database.query('SELECT id FROM servers WHERE host = $1', [name]);
    expect(rows).toEqual([{ id: servers[answers.findIndex(({ status }) => status === 200)]?.serverId }]);
    // another name, or a server that shares none, is no concern of theirs
    expect((await join(newServer(10_000, 10_100), newName())).status).toBe(200);
    expect((await newServer(10_000, 10_100).register({ host: name })).status).toBe(200);
  });

  it('are registered one after the other: one that is under way counts', async () => {
    const [first, second] = [newServer(11_000, 11_099), newServer(11_050, 11_149)];
    const name = newName();
    await first.register({ host: name });
    await inTransaction(plane.database, async (client) => {
      // what its registration with a peer port does, held open until the other waits for it
      await client.query('SELECT claim_port_range($1, $2, $2, 11000, 11099)', [first.serverId, name]);
      await client.query(`UPDATE servers SET peer_host = '10.0.0.7', peer_port = 7837 WHERE id = $1`, [first.serverId]);
      const registering = join(second, name);
      await somebodyWaits(plane.database);
      await client.query('COMMIT');
      expect((await registering).body).toMatchObject({ status: 409, code: 'PORT_RANGE_TAKEN' });
    });
  });

  it('may be replaced under another id when one is gone, with all its tunnels', async () => {
    const name = newName();
    const [before, after] = [newServer(12_000, 12_009), newServer(12_005, 12_014)];
    await join(before, name);
    const user = await plane.newUser();
    const { body: tunnel } = await user.post('/api/v1/tunnels', { port: 12_001 });
    await loseLease(before);
    expect((await join(after, name)).body).toMatchObject({ code: 'PORT_RANGE_TAKEN' });
    await user.delete(`/api/v1/tunnels/${tunnel.id}`);
    expect((await join(after, name)).status).toBe(200);
    expect((await directory(after, '')).peers).toEqual([]);
    // it comes back: these ports are not its own any more
    expect((await join(before, name)).body).toMatchObject({ code: 'PORT_RANGE_TAKEN' });
  });
});

describe('a client that named no port', () => {
  it('is found by its secret on another server of the name, and on none of another name', async () => {
    const [asked, owner, stranger] = [newServer(13_000, 13_099), newServer(13_100, 13_199), newServer(13_200, 13_299)];
    const name = newName();
    await join(asked, name);
    await join(owner, name);
    await join(stranger, newName());
    const user = await plane.newUser();
    const open = async (port: number) => (await user.post('/api/v1/tunnels', { port })).body;
    const [own, theirs, far] = [await open(13_000), await open(13_100), await open(13_200)];
    const found = await locate(asked, theirs.token);
    expect([found.status, found.body]).toEqual([200, { port: 13_100 }]);
    // with a client, too: its older connection may hang
    expect((await owner.authorize(theirs.token, 13_100)).status).toBe(200);
    expect((await locate(asked, theirs.token)).body).toEqual({ port: 13_100 });
    for (const secret of [own.token, far.token, 'tk_wrong']) {
      expect((await locate(asked, secret)).body).toMatchObject({ status: 403, code: 'INVALID_SECRET' });
    }
    await user.delete(`/api/v1/tunnels/${theirs.id}`);
    expect((await locate(asked, theirs.token)).body.code).toBe('INVALID_SECRET');
    await asked.register({ host: name });
    const alone = await user.post('/api/v1/tunnels', { port: 13_100 });
    expect((await locate(asked, alone.body.token)).body.code).toBe('INVALID_SECRET');
    expect((await locate(newServer(1, 2), far.token)).body.code).toBe('SERVER_UNKNOWN');
  });

  it('is searched for among so many tunnels and no more; those that want a client come first', async () => {
    const [asked, owner] = [newServer(14_000, 14_099), newServer(15_000, 16_999)];
    const name = newName();
    await join(asked, name);
    await join(owner, name);
    const user = await plane.newUser();
    const [old, wanting] = [
      (await user.post('/api/v1/tunnels', { port: 15_000 })).body,
      (await user.post('/api/v1/tunnels', { port: 15_001 })).body,
    ];
    await owner.authorize(old.token, 15_000);
    // as many more as one search looks at, all with a client that came later
    await plane.database.query(
      `INSERT INTO tunnels (id, user_id, server_id, port, state, sealed_key, connected_at)
       SELECT gen_random_uuid(), user_id, server_id, port + n, 'active', sealed_key, now() + interval '1 second'
       FROM tunnels, generate_series(2, 1001) n WHERE id = $1`,
      [old.id],
    );
    expect((await locate(asked, wanting.token)).body).toEqual({ port: 15_001 });
    const { answer, ms } = await heldUp(plane.url(), () => locate(asked, old.token));
    expect(answer.body).toMatchObject({ status: 422, code: 'PORT_REQUIRED' });
    expect(ms).toBeLessThan(1_000);
  });
});

describe('an administrator who gives a server another name', () => {
  it('is refused the name of a server with the same ports, and by nothing else', async () => {
    const admin = await plane.admin();
    const rename = (server: PlaneClient, host: string) =>
      admin.patch(`/api/v1/admin/servers/${server.serverId}`, { host });
    const [mine, theirs] = [newName(), newName()];
    const [one, other, apart] = [newServer(11_000, 11_099), newServer(11_050, 11_149), newServer(11_200, 11_299)];
    for (const [server, name] of [
      [one, mine],
      [other, theirs],
      [apart, theirs],
    ] as const)
      expect((await join(server, name)).status).toBe(200);
    expect(await rename(one, theirs)).toMatchObject({ status: 409, body: { code: 'PORT_RANGE_TAKEN' } });
    expect((await admin.get(`/api/v1/admin/servers/${one.serverId}`)).body.host).toBe(mine);
    expect(await rename(apart, mine)).toMatchObject({ status: 200, body: { host: mine } });
    // its own ports are in nobody's way, also under the name that it has
    expect((await rename(one, mine)).status).toBe(200);
    await loseLease(other);
    expect((await rename(one, theirs)).status).toBe(200);
  });
});
