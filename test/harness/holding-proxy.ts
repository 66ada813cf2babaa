import { once } from 'node:events';
import http from 'node:http';
import { buffer } from 'node:stream/consumers';

/** More than pass while a test looks at them. */
const ANSWERED_MAX = 1_000;

/** Between a bore-server and a backend: passes on what is asked, and holds answers back where a test says so. */
export class HoldingProxy {
  /** Calls whose answers were passed on, the latest of them last. */
  readonly answered: { readonly path: string; readonly text: string }[] = [];
  private held: { readonly path: string; readonly until: Promise<void>; readonly release: () => void } | undefined;
  private readonly server = http.createServer((request, response) => {
    // who has given up on an answer is not there any more
    this.pass(request, response).catch(() => response.destroy());
  });

  private constructor(private readonly target: string) {}

  static async start(target: string): Promise<HoldingProxy> {
    const proxy = new HoldingProxy(target);
    await once(proxy.server.listen(0, '127.0.0.1'), 'listening');
    return proxy;
  }

  get url(): string {
    const address = this.server.address();
    return `http://127.0.0.1:${typeof address === 'object' ? address?.port : ''}`;
  }

  /** The backend does what is asked at paths that end so, and nobody hears of it until the release. */
  hold(path: string): void {
    let release = (): void => undefined;
    const until = new Promise<void>((resolve) => (release = resolve));
    this.held = { path, until, release };
  }

  release(): void {
    this.held?.release();
    this.held = undefined;
  }

  stop(): void {
    this.release();
    this.server.close();
    this.server.closeAllConnections();
  }

  private async pass(request: http.IncomingMessage, response: http.ServerResponse): Promise<void> {
    const { url = '', method = '', headers } = request;
    const asked = http.request(`${this.target}${url}`, { method, headers }).end(await buffer(request));
    const [answer]: http.IncomingMessage[] = await once(asked, 'response');
    if (!answer) throw new Error('no answer');
    const body = await buffer(answer);
    if (this.held && url.endsWith(this.held.path)) await this.held.until;
    response.writeHead(answer.statusCode ?? 502, answer.headers).end(body);
    this.answered.push({ path: url, text: body.toString() });
    if (this.answered.length > ANSWERED_MAX) this.answered.shift();
  }
}
