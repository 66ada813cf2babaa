import { once } from 'node:events';
import http from 'node:http';

/** The admin surface of a bore-server that is well, fails, or takes requests and never answers, as it is told. */
export class AdminEndpoint {
  mode: 'answers' | 'fails' | 'hangs' = 'answers';
  /** Paths of the requests that have arrived. */
  paths: (string | undefined)[] = [];
  /** The most requests that waited for an answer at one time, since it was set. */
  waitingMax = 0;
  private readonly held = new Set<http.ServerResponse>();
  private readonly server = http.createServer((request, response) => {
    this.paths.push(request.url);
    request.resume();
    if (this.mode === 'answers') return answer(response);
    if (this.mode === 'fails') return void response.writeHead(503).end('{}');
    this.held.add(response);
    this.waitingMax = Math.max(this.waitingMax, this.waiting);
    response.once('close', () => this.held.delete(response));
  });

  get arrived(): number {
    return this.paths.length;
  }

  async listen(): Promise<string> {
    await once(this.server.listen(0, '127.0.0.1'), 'listening');
    const address = this.server.address();
    return `http://127.0.0.1:${typeof address === 'object' ? address?.port : 0}`;
  }

  /** Requests that wait for an answer and whose connection is still there. */
  get waiting(): number {
    return this.held.size;
  }

  /** Answers all that wait. */
  release(): void {
    for (const response of this.held) answer(response);
  }

  close(): void {
    this.server.close();
    this.server.closeAllConnections();
  }
}

/** As a bore-server that does whatever it is told. */
function answer(response: http.ServerResponse): void {
  response.setHeader('content-type', 'application/json');
  response.end('{"closed":true,"fenced":true,"updated":true}');
}
