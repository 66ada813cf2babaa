import { once } from 'node:events';
import http from 'node:http';

import { answerChallenge, keyOfSecret, randomUuid } from '../../src/protocol/challenge.js';
import { INTERNAL_KEY_HEADER, type RegisterRequest, type SessionRef } from '../../src/protocol/plane-api.js';
import { type Report } from '../../src/protocol/reports.js';
import { TunnelSettings } from '../../src/protocol/tunnel-settings.js';
import { type Answer, Api } from '../harness/api.js';

/** A session, as `authorize` granted it; without a version of the key: as bore-servers of older releases say it. */
type CarriedSession = SessionRef & { readonly keyVersion?: number };

interface Beat {
  readonly sessions?: readonly CarriedSession[];
  /** Tunnels without a session of which something is kept. */
  readonly kept?: readonly CarriedSession[];
  readonly ended?: readonly SessionRef[];
  readonly report?: Report;
  readonly sequence?: number;
  readonly draining?: boolean;
  /** The backend that is asked; default: the one of the constructor. */
  readonly url?: string;
}

/** A bore-server as the control plane sees one: it speaks the plane API both ways, and carries no bytes. */
export class PlaneClient {
  readonly instanceId = randomUuid();
  /** Calls that backends made to its admin surface. */
  readonly calls: { path: string; key: unknown; body: string }[] = [];
  /** Settings that it works with, by tunnel: from authorize, orders and heartbeats, the newest that it heard of. */
  readonly settings = new Map<string, TunnelSettings>();
  /** Answers calls to its admin surface with 503, as if it could not be reached. */
  unreachable = false;
  private readonly admin = http.createServer((request, response) => void this.onCall(request, response));
  private sequence = 0;

  constructor(
    private readonly url: string,
    private readonly internalKey: string,
    readonly serverId: string,
    private readonly ports: { min: number; max: number },
  ) {}

  async register(more: Partial<RegisterRequest> = {}): Promise<Answer> {
    if (!this.admin.listening) await once(this.admin.listen(0, '127.0.0.1'), 'listening');
    const address = this.admin.address();
    return this.api().post('/api/v1/internal/servers/register', {
      serverId: this.serverId,
      instanceId: this.instanceId,
      host: '127.0.0.1',
      controlPort: 7835,
      adminUrl: `http://127.0.0.1:${typeof address === 'object' ? address?.port : 0}`,
      portRange: this.ports,
      ...more,
    });
  }

  /** A heartbeat that says which sessions are carried and ended. */
  heartbeat(
    sessions: readonly SessionRef[] = [],
    ended: readonly SessionRef[] = [],
    sequence?: number,
  ): Promise<Answer> {
    return this.beat({ sessions, ended, ...(sequence !== undefined && { sequence }) });
  }

  async beat({
    sessions = [],
    kept = [],
    ended = [],
    report,
    sequence,
    draining = false,
    url,
  }: Beat = {}): Promise<Answer> {
    const answer = await this.api(url).post(`/api/v1/internal/servers/${this.serverId}/heartbeat`, {
      instanceId: this.instanceId,
      sequence: sequence ?? ++this.sequence,
      draining,
      load: { connections: 0, bandwidthMbps: 0 },
      sessions: sessions.map(({ tunnelId, sessionId, epoch, keyVersion }) => ({
        tunnelId,
        sessionId,
        epoch,
        ...(keyVersion !== undefined && { keyVersion }),
        settings: this.settings.get(tunnelId)?.version ?? 0,
      })),
      ...(kept.length > 0 && {
        kept: kept.map(({ tunnelId, epoch, keyVersion = 0 }) => ({
          tunnelId,
          epoch,
          keyVersion,
          settings: this.settings.get(tunnelId)?.version ?? 0,
        })),
      }),
      ended: ended.map(({ tunnelId, sessionId, epoch }) => ({ tunnelId, sessionId, epoch, reason: 'client_closed' })),
      ...(report && { report }),
    });
    for (const { tunnelId, settings } of answer.body?.update ?? []) this.learn(tunnelId, settings);
    return answer;
  }

  /** A client that knows `token` says Hello(port). */
  async authorize(token: string, port: number): Promise<Answer> {
    const challenge = randomUuid();
    const answer = await this.api().post('/api/v1/internal/tunnels/authorize', {
      serverId: this.serverId,
      instanceId: this.instanceId,
      port,
      challenge,
      tag: answerChallenge(keyOfSecret(token), challenge),
      sessionId: randomUuid(),
      clientAddress: '127.0.0.1',
    });
    if (answer.status === 200) this.learn(answer.body.tunnelId, answer.body.settings);
    return answer;
  }

  close(): void {
    this.admin.close();
    this.admin.closeAllConnections();
  }

  private api(url = this.url): Api {
    return new Api(url, { [INTERNAL_KEY_HEADER]: this.internalKey });
  }

  private learn(tunnelId: string, body: unknown): void {
    const settings = TunnelSettings.parse(body);
    if (settings.version >= (this.settings.get(tunnelId)?.version ?? 0)) this.settings.set(tunnelId, settings);
  }

  private async onCall(request: http.IncomingMessage, response: http.ServerResponse): Promise<void> {
    let body = '';
    for await (const chunk of request.setEncoding('utf8')) body += String(chunk);
    const path = request.url ?? '';
    this.calls.push({ path, key: request.headers[INTERNAL_KEY_HEADER], body });
    response.setHeader('content-type', 'application/json');
    if (this.unreachable) {
      response.writeHead(503).end('{}');
      return;
    }
    const [, tunnelId, order] = /^\/tunnels\/([^/]+)\/(settings|close|fence)$/.exec(path) ?? [];
    if (tunnelId !== undefined && order === 'settings') this.learn(tunnelId, JSON.parse(body));
    response.end(JSON.stringify({ [{ settings: 'updated', fence: 'fenced' }[order ?? ''] ?? 'closed']: true }));
  }
}
