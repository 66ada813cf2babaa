/** A load balancer with TLS in front of a backend, which can be made to do wrong. */
import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import http from 'node:http';
import https from 'node:https';
import path from 'node:path';

import { ownPort } from '../harness/own-ports.js';

/** What is wrong with it. */
export interface Wrong {
  /** Answers everything so. */
  status?: number;
  /** Does not pass the limits' headers on. */
  hidesLimits?: boolean;
  /** Brings Prometheus' token for whoever asks. */
  showsMetrics?: boolean;
}

/** Names of files: of an authority, and of a certificate of it for 127.0.0.1. */
export interface Certificates {
  readonly authority: string;
  readonly certificate: string;
  readonly key: string;
}

/** @param days how long the certificate holds */
export function makeCertificates(folder: string, name: string, days: number): Certificates {
  const of = (suffix: string) => path.join(folder, `${name}-${suffix}.pem`);
  const openssl = (...args: string[]) => execFileSync('openssl', args, { stdio: 'pipe' });
  const curve = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'];
  const authority = ['-keyout', of('ca-key'), '-out', of('ca')];
  openssl('req', '-x509', '-days', '90', ...curve, ...authority, '-subj', `/CN=authority ${name}`);
  const own = ['-keyout', of('key'), '-out', of('cert'), '-CA', of('ca'), '-CAkey', of('ca-key')];
  const names = ['-subj', '/CN=api.test', '-addext', 'subjectAltName=IP:127.0.0.1'];
  openssl('req', '-x509', '-days', String(days), ...curve, ...own, ...names);
  return { authority: of('ca'), certificate: of('cert'), key: of('key') };
}

export class Front {
  readonly wrong: Wrong = {};

  private constructor(
    private readonly server: https.Server,
    readonly url: string,
  ) {}

  /** @param token that Prometheus brings */
  static async start(
    backend: string,
    { certificate, key }: Certificates,
    token: string,
    old: https.ServerOptions = {},
  ): Promise<Front> {
    const port = await ownPort();
    const server = https.createServer({ cert: readFileSync(certificate), key: readFileSync(key), ...old });
    const front = new Front(server, `https://127.0.0.1:${port}`);
    server.on('request', (request, response) => {
      const { wrong } = front;
      if (wrong.status !== undefined) return void response.writeHead(wrong.status).end();
      const headers = {
        ...request.headers,
        'x-forwarded-for': '203.0.113.7',
        ...(wrong.showsMetrics && { authorization: `Bearer ${token}` }),
      };
      const { method, url } = request;
      const onward = http.request(new URL(url ?? '/', backend), { method, headers }, (answer) => {
        const { 'ratelimit-policy': policy, ...others } = answer.headers;
        const shown = wrong.hidesLimits || policy === undefined ? others : { ...others, 'ratelimit-policy': policy };
        response.writeHead(answer.statusCode ?? 502, shown);
        answer.pipe(response);
      });
      onward.on('error', () => response.destroy());
      request.pipe(onward);
    });
    server.listen(port, '127.0.0.1');
    await once(server, 'listening');
    return front;
  }

  async stop(): Promise<void> {
    const closed = once(this.server, 'close');
    this.server.close();
    this.server.closeAllConnections();
    await closed;
  }
}
