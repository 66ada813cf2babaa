import { randomUUID } from 'node:crypto';

import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { type Answer, Api } from '../harness/api.js';
import { SECRETS } from '../harness/backend.js';
import { committedOpenApi, type Operation, operationsOf } from '../harness/openapi.js';
import { ControlPlane } from './control-plane.js';

/**
 * Every route × every kind of caller (OWASP API1, API5; ASVS 5.0, 8.2.1, 8.2.2, 8.4.1), made from openapi.json: a route that
 * is new is here at once, with what its access metadata promises, and fails until somebody has decided.
 */
const OPERATIONS = operationsOf(committedOpenApi()).filter(({ path }) => path.startsWith('/api/'));
const PASSWORD = 'correct horse battery';

/** Codes by which a caller is turned away before anything is looked at. */
const TURNED_AWAY = ['UNAUTHENTICATED', 'FORBIDDEN', 'SCOPE_MISSING', 'LOGIN_REQUIRED', 'INVALID_INTERNAL_KEY'];
const PASSES = 'passes';

interface Account {
  readonly id: string;
  readonly email: string;
  readonly login: Api;
}

/** One operation's own world: what it ends or deletes is nobody else's. */
interface World {
  readonly owner: Account;
  readonly other: Account;
  readonly suspended: Account;
  /** Of the owner: with the operation's scope alone, and with every other. */
  readonly keyWithScope: Api;
  readonly keyWithoutScope: Api;
  readonly revokedKey: Api;
  readonly admin: Api;
  readonly adminKeyWithScope: Api;
  readonly adminKeyWithoutScope: Api;
  /** What stands in the path of the operation: of the owner, where it is somebody's. */
  readonly path: string;
}

let plane: ControlPlane;
let admin: Api;
let port = 10_000;

beforeAll(async () => {
  plane = await ControlPlane.start({ env: { PLAN_FREE_TUNNELS: '1000' } });
  await plane.newServer('matrix', port, 2_000);
  admin = await plane.admin();
});

afterAll(() => plane?.stop());

async function newAccount(): Promise<Account> {
  const email = `${randomUUID()}@example.com`;
  const api = new Api(plane.url());
  const { body } = await api.post('/api/v1/auth/signup', { email, password: PASSWORD });
  return { id: body.user.id, email, login: api.withToken(body.accessToken) };
}

async function newKey(login: Api, scopes: readonly string[]): Promise<{ id: string; api: Api }> {
  const { body } = await login.post('/api/v1/auth/api-keys', { name: 'matrix', scopes });
  const secret = Object.values<unknown>(body).find((value) => typeof value === 'string' && value.startsWith('bk_'));
  return { id: body.id, api: new Api(plane.url()).withToken(String(secret)) };
}

const USER_SCOPES = ['tunnels:read', 'tunnels:write', 'usage:read', 'capacity:read'];
const ADMIN_SCOPES = ['admin:read', 'admin:write'];

/** What belongs into a path, by what stands before it. A path that is none of these needs a decision here. */
async function resourceOf(operation: Operation, { owner, other }: Pick<World, 'owner' | 'other'>): Promise<string> {
  const tunnel = async () => (await owner.login.post('/api/v1/tunnels', {})).body.id;
  const parents: Record<string, () => Promise<string>> = {
    '/api/v1/tunnels/': tunnel,
    '/api/v1/admin/tunnels/': tunnel,
    '/api/v1/auth/sessions/': async () => {
      const { body } = await new Api(plane.url()).post('/api/v1/auth/login', {
        email: owner.email,
        password: PASSWORD,
      });
      const { body: list } = await new Api(plane.url()).withToken(body.accessToken).get('/api/v1/auth/sessions');
      return list.items.find((session: { current: boolean }) => session.current).id;
    },
    '/api/v1/auth/api-keys/': async () => (await newKey(owner.login, ['tunnels:read'])).id,
    '/api/v1/admin/users/': async () => other.id,
    '/api/v1/admin/servers/': async () => {
      const id = `announced-${port++}`;
      await admin.post('/api/v1/admin/servers', { id, host: 'bore.example.com', location: 'eu' });
      return id;
    },
    '/api/v1/admin/quarantine/': async () => randomUUID(),
    '/api/v1/internal/servers/': async () => 'matrix',
  };
  const before = operation.path.slice(0, operation.path.indexOf('{'));
  const make = parents[before];
  if (!make) throw new Error(`${operation.name}: what stands behind ${before} in its path?`);
  return make();
}

async function newWorld(operation: Operation): Promise<World> {
  const [owner, other, suspended] = [await newAccount(), await newAccount(), await newAccount()];
  const all = [...USER_SCOPES, ...ADMIN_SCOPES];
  const scope = operation['x-access']?.scope;
  const [mine, others] = [scope ? [scope] : all, all.filter((each) => each !== scope)];
  const ofUser = (scopes: string[]) => scopes.filter((each) => USER_SCOPES.includes(each));
  // a user's key cannot hold a scope of administrators: any other stands for it
  const withScope = ofUser(mine);
  const keyWithScope = await newKey(owner.login, withScope.length > 0 ? withScope : USER_SCOPES);
  const keyWithoutScope = await newKey(owner.login, ofUser(others).slice(0, 3));
  const revoked = await newKey(owner.login, USER_SCOPES);
  await owner.login.delete(`/api/v1/auth/api-keys/${revoked.id}`);
  const { status } = await admin.patch(`/api/v1/admin/users/${suspended.id}`, { suspended: { reason: 'matrix' } });
  if (status !== 200) throw new Error(`the user could not be suspended: ${status}`);
  const administrator = await newAccount();
  await admin.patch(`/api/v1/admin/users/${administrator.id}`, { role: 'admin' });
  const path = operation.path.includes('{')
    ? operation.path.replace(/\{\w+\}/, await resourceOf(operation, { owner, other }))
    : operation.path;
  return {
    owner,
    other,
    suspended,
    path,
    keyWithScope: keyWithScope.api,
    keyWithoutScope: keyWithoutScope.api,
    revokedKey: revoked.api,
    admin: administrator.login,
    adminKeyWithScope: (await newKey(administrator.login, mine)).api,
    adminKeyWithoutScope: (await newKey(administrator.login, others)).api,
  };
}

/** What a caller hears on a route of this access: a code that turns them away, or nothing of the kind. */
function expectations(operation: Operation, world: World): [caller: string, api: Api, expected: string][] {
  const { kind, scope } = operation['x-access'] ?? {};
  const nobody = new Api(plane.url());
  const internal = new Api(plane.url(), { 'x-internal-api-key': SECRETS.INTERNAL_API_KEY });
  const stranger = new Api(plane.url(), { 'x-internal-api-key': 'x'.repeat(40) });
  const loginOnly = (kind === 'user' || kind === 'admin') && scope === null;
  const byKind: Record<string, Record<string, string>> = {
    public: {},
    internal: { internal: PASSES },
    user: {
      nobody: 'UNAUTHENTICATED',
      internal: 'UNAUTHENTICATED',
      stranger: 'UNAUTHENTICATED',
      'suspended user': 'UNAUTHENTICATED',
      'revoked key': 'UNAUTHENTICATED',
      'key with the scope': loginOnly ? 'LOGIN_REQUIRED' : PASSES,
      'key without the scope': loginOnly ? 'LOGIN_REQUIRED' : 'SCOPE_MISSING',
      'administrator’s key with the scope': loginOnly ? 'LOGIN_REQUIRED' : PASSES,
      'administrator’s key without the scope': loginOnly ? 'LOGIN_REQUIRED' : 'SCOPE_MISSING',
    },
    admin: {
      nobody: 'UNAUTHENTICATED',
      internal: 'UNAUTHENTICATED',
      stranger: 'UNAUTHENTICATED',
      'suspended user': 'UNAUTHENTICATED',
      'revoked key': 'UNAUTHENTICATED',
      owner: 'FORBIDDEN',
      'other user': 'FORBIDDEN',
      'key with the scope': 'SCOPE_MISSING',
      'key without the scope': 'SCOPE_MISSING',
      'administrator’s key with the scope': PASSES,
      'administrator’s key without the scope': 'SCOPE_MISSING',
    },
  };
  const of = byKind[kind ?? ''];
  if (!of) throw new Error(`${operation.name} does not say who may call it`);
  const callers: Record<string, Api> = {
    nobody,
    stranger,
    internal,
    'suspended user': world.suspended.login,
    'revoked key': world.revokedKey,
    'key without the scope': world.keyWithoutScope,
    'administrator’s key without the scope': world.adminKeyWithoutScope,
    'other user': world.other.login,
    // who may, comes last: it may delete what the others ask for
    'key with the scope': world.keyWithScope,
    'administrator’s key with the scope': world.adminKeyWithScope,
    owner: world.owner.login,
    administrator: world.admin,
  };
  const unnamed = kind === 'internal' ? 'INVALID_INTERNAL_KEY' : PASSES;
  return Object.entries(callers).map(([caller, api]) => [caller, api, of[caller] ?? unnamed]);
}

/** Bodies that get past validation, for routes that refuse an empty one. */
const BODIES: Record<string, unknown> = {};

function send(operation: Operation, api: Api, path: string): Promise<Answer> {
  if (!operation.requestBody) return api.send(operation.method, path);
  const body = JSON.stringify(BODIES[operation.name] ?? {});
  return api.send(operation.method, path, body, { 'content-type': 'application/json' });
}

describe.each(OPERATIONS.map((operation) => [operation.name, operation] as const))('%s', (_, operation) => {
  it('lets in whom it says, and nobody else', async () => {
    const world = await newWorld(operation);
    const heard: Record<string, string> = {};
    const wanted: Record<string, string> = {};
    for (const [caller, api, expected] of expectations(operation, world)) {
      const answer = await send(operation, api, world.path);
      wanted[caller] = expected;
      heard[caller] = TURNED_AWAY.includes(answer.body?.code) ? answer.body.code : PASSES;
      expect(answer.status, `${caller}: ${answer.text}`).not.toBe(500);
    }
    expect(heard).toEqual(wanted);
  });

  if (operation['x-access']?.kind === 'user' && operation.path.includes('{')) {
    it('answers for what is another’s as for what is not there (G8)', async () => {
      const world = await newWorld(operation);
      const foreign = await send(operation, world.other.login, world.path);
      const nothing = await send(operation, world.other.login, operation.path.replace(/\{\w+\}/, randomUUID()));
      expect([foreign.status, nothing.status]).toEqual([404, 404]);
      const shown = ({ body: { instance: _instance, requestId: _id, ...rest } }: Answer) => rest;
      expect(shown(foreign)).toEqual(shown(nothing));
      // and it is there: its owner is not told so
      expect((await send(operation, world.owner.login, world.path)).status).toBeLessThan(400);
    });
  }
});

it('an administrator’s key is worth nothing more than a user’s when its owner is none any more', async () => {
  const account = await newAccount();
  await admin.patch(`/api/v1/admin/users/${account.id}`, { role: 'admin' });
  const { api } = await newKey(account.login, ['admin:read', 'tunnels:read']);
  expect((await api.get('/api/v1/admin/servers')).status).toBe(200);
  await admin.patch(`/api/v1/admin/users/${account.id}`, { role: 'user' });
  expect(await api.get('/api/v1/admin/servers')).toMatchObject({ status: 403, body: { code: 'FORBIDDEN' } });
  expect((await api.get('/api/v1/tunnels')).status).toBe(200);
});
