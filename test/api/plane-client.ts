import { once } from 'node:events';
import http from 'node:http';

import { answerChallenge, keyOfSecret, randomUuid } from '../../src/protocol/challenge.js';
import { INTERNAL_KEY_HEADER, type RegisterRequest, type SessionRef } from '../../src/protocol/plane-api.js';
import { type Answer, Api } from '../harness/api.js';

/** A bore-server as the control plane sees one: it speaks the plane API both ways, and carries no bytes. */
export class PlaneClient {
  readonly instanceId = randomUuid();
  private readonly api: Api;
  /** Bodies of the calls that backends made to its admin surface, by path. */
  readonly calls: { path: string; key: unknown; body: string }[] = [];
  private readonly admin = http.createServer((request, response) => void this.onCall(request, response));
  private sequence = 0;

  constructor(
    url: string,
    internalKey: string,
    readonly serverId: string,
    private readonly ports: { min: number; max: number },
  ) {
    this.api = new Api(url, { [INTERNAL_KEY_HEADER]: internalKey });
  }

  async register(more: Partial<RegisterRequest> = {}): Promise<Answer> {
    if (!this.admin.listening) await once(this.admin.listen(0, '127.0.0.1'), 'listening');
    const address = this.admin.address();
    return this.api.post('/api/v1/internal/servers/register', {
      serverId: this.serverId,
      instanceId: this.instanceId,
      host: '127.0.0.1',
      controlPort: 7835,
      adminUrl: `http://127.0.0.1:${typeof address === 'object' ? address?.port : 0}`,
      portRange: this.ports,
      ...more,
    });
  }

  heartbeat(
    sessions: readonly SessionRef[] = [],
    ended: readonly SessionRef[] = [],
    sequence = ++this.sequence,
  ): Promise<Answer> {
    return this.api.post(`/api/v1/internal/servers/${this.serverId}/heartbeat`, {
      instanceId: this.instanceId,
      sequence,
      draining: false,
      load: { connections: 0, bandwidthMbps: 0 },
      sessions,
      ended: ended.map((ref) => ({ ...ref, reason: 'client_closed' })),
    });
  }

  /** A client that knows `token` says Hello(port). */
  authorize(token: string, port: number): Promise<Answer> {
    const challenge = randomUuid();
    return this.api.post('/api/v1/internal/tunnels/authorize', {
      serverId: this.serverId,
      instanceId: this.instanceId,
      port,
      challenge,
      tag: answerChallenge(keyOfSecret(token), challenge),
      sessionId: randomUuid(),
      clientAddress: '127.0.0.1',
    });
  }

  close(): void {
    this.admin.close();
    this.admin.closeAllConnections();
  }

  private async onCall(request: http.IncomingMessage, response: http.ServerResponse): Promise<void> {
    let body = '';
    for await (const chunk of request.setEncoding('utf8')) body += String(chunk);
    this.calls.push({ path: request.url ?? '', key: request.headers[INTERNAL_KEY_HEADER], body });
    response.setHeader('content-type', 'application/json').end('{"closed":true}');
  }
}
