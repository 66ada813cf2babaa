import { randomUUID } from 'node:crypto';

import { Api } from '../harness/api.js';
import { comingAgain } from '../harness/coming-again.js';
import { SECRETS } from '../harness/backend.js';
import type { Operation } from '../harness/openapi.js';
import type { ControlPlane } from './control-plane.js';

/** Stands in a path for the id of something that exists; it is chosen, and made if need be, when the request is sent. */
export const LIVE = '@live';

export type CallerKind = 'nobody' | 'user' | 'admin' | 'internal';

const PASSWORD = 'correct horse battery';
/** A server and a port of it that requests may do anything to. */
const FUZZED = { server: 'fuzzed', port: '10000' };

/** Each may be suspended before it has opened a tunnel: so many in a row are not. */
const VICTIMS = 5;

interface Account {
  readonly email: string;
  readonly id: string;
  readonly api: Api;
}

/** Something that requests use up, with another of it when it is gone. */
class Supply<T> {
  private current: Promise<T> | undefined;

  constructor(private readonly make: () => Promise<T>) {}

  /** What could not be made is made anew for who asks next. */
  get(): Promise<T> {
    if (this.current) return this.current;
    const made = this.make();
    this.current = made;
    made.catch(() => {
      if (this.current === made) this.current = undefined;
    });
    return made;
  }

  /** Only what is still the current one: of many that notice its end, one makes another. */
  async gone(what: T): Promise<void> {
    if (this.current && (await this.current) === what) this.current = undefined;
  }
}

/**
 * Whoever calls, and what there is to call about. What a request ends is something of which there is more: else the first
 * suspension, logout or deletion would be the end of all that lies behind it.
 */
export class FuzzWorld {
  private readonly callers: Record<CallerKind, Supply<Api>>;
  private readonly owner: Supply<Account>;
  /** Whose tunnels administrators suspend, and who is suspended. */
  private readonly victim: Supply<Account>;
  /** Who logs out. */
  private readonly leaver: Supply<Account>;
  private readonly ownTunnel: Supply<string>;
  private readonly victimTunnel: Supply<string>;
  private readonly apiKey: Supply<string>;

  constructor(private readonly plane: ControlPlane) {
    const fixed = (api: Api) => new Supply(() => Promise.resolve(api));
    this.owner = new Supply(() => this.signUp());
    this.victim = new Supply(() => this.signUp());
    this.leaver = new Supply(() => this.signUp());
    this.callers = {
      nobody: fixed(new Api(plane.url())),
      internal: fixed(new Api(plane.url(), { 'x-internal-api-key': SECRETS.INTERNAL_API_KEY })),
      user: new Supply(async () => (await this.logIn((await this.owner.get()).email)).api),
      admin: new Supply(() => plane.admin()),
    };
    this.ownTunnel = new Supply(async () => open((await this.owner.get()).api));
    this.victimTunnel = new Supply(async () => {
      let refused: unknown;
      for (let i = 0; i < VICTIMS; i++) {
        const victim = await this.victim.get();
        try {
          return await open(victim.api);
        } catch (error) {
          // suspended, with an earlier tunnel or just now
          refused = error;
          await this.victim.gone(victim);
        }
      }
      throw refused;
    });
    this.apiKey = new Supply(async () => {
      const { api } = await this.owner.get();
      const { body } = await api.post('/api/v1/auth/api-keys', { name: 'fuzzed', scopes: ['tunnels:read'] });
      return String(body.id);
    });
  }

  /** Who sends a request to `operation`: a login of its own where that is what it ends. */
  async caller(kind: CallerKind, operation: Operation): Promise<Api> {
    if (kind === 'user' && /\/logout(-all)?$/.test(operation.path)) {
      return (await this.logIn((await this.leaver.get()).email)).api;
    }
    return this.callers[kind].get();
  }

  /** Fills in what stands for something that exists. */
  async path(operation: Operation, path: string): Promise<string> {
    let text = path;
    while (text.includes(LIVE)) text = text.replace(LIVE, await this.live(operation.path, text));
    return text;
  }

  /** Learns from an answer that something is not there any more. */
  async learn(kind: CallerKind, api: Api, operation: Operation, path: string, status: number): Promise<void> {
    if (status === 401) await this.callers[kind].gone(api);
    const ended =
      status === 404 || (operation.method === 'DELETE' && status === 204) || operation.path.endsWith('/suspend');
    for (const supply of ended || status === 409 ? [this.ownTunnel, this.victimTunnel, this.apiKey] : []) {
      const id = await supply.get();
      if (path.includes(id)) await supply.gone(id);
    }
  }

  private async live(template: string, soFar: string): Promise<string> {
    if (template.includes('/quarantine/')) return soFar.includes(FUZZED.server) ? FUZZED.port : FUZZED.server;
    if (template.includes('/servers/')) return FUZZED.server;
    if (template.includes('/admin/tunnels/')) return this.victimTunnel.get();
    if (template.includes('/admin/users/')) return (await this.victim.get()).id;
    if (template.includes('/api-keys/')) return this.apiKey.get();
    if (template.includes('/auth/sessions/')) return (await this.logIn((await this.owner.get()).email)).sessionId;
    return this.ownTunnel.get();
  }

  private async signUp(): Promise<Account> {
    const email = `${randomUUID()}@example.com`;
    const { body } = await comingAgain(() =>
      new Api(this.plane.url()).post('/api/v1/auth/signup', { email, password: PASSWORD }),
    );
    return { email, id: String(body.user.id), api: new Api(this.plane.url()).withToken(body.accessToken) };
  }

  private async logIn(email: string): Promise<{ api: Api; sessionId: string }> {
    const api = new Api(this.plane.url());
    const { status, body } = await comingAgain(() => api.post('/api/v1/auth/login', { email, password: PASSWORD }));
    if (status !== 200) throw new Error(`no login: ${JSON.stringify(body)}`);
    const [, payload = ''] = String(body.accessToken).split('.');
    const { sid } = JSON.parse(Buffer.from(payload, 'base64url').toString());
    return { api: api.withToken(body.accessToken), sessionId: String(sid) };
  }
}

/** @throws Error when it is refused */
async function open(api: Api): Promise<string> {
  const { status, body } = await comingAgain(() => api.post('/api/v1/tunnels', {}));
  if (status !== 201) throw new Error(`no tunnel to send requests about: ${JSON.stringify(body)}`);
  return String(body.id);
}
