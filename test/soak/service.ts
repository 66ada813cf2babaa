import { once } from 'node:events';
import net, { type Socket } from 'node:net';

import { COMMANDS } from './visits.js';

/** The local service of the soak test: says everything again, or breaks off, as the first byte wants it. */
export class SoakService {
  private readonly server = net.createServer({ allowHalfOpen: true, noDelay: true }, serve);

  async listen(): Promise<number> {
    this.server.listen({ port: 0, host: '127.0.0.1', backlog: 4_096 });
    await once(this.server, 'listening');
    const address = this.server.address();
    if (address === null || typeof address === 'string') throw new Error('a TCP server has no port');
    return address.port;
  }

  /** Connections open now. */
  connections(): Promise<number> {
    return new Promise((resolve, reject) =>
      this.server.getConnections((error, count) => (error ? reject(error) : resolve(count))),
    );
  }

  close(): void {
    this.server.close();
  }
}

/** Serves one stream; also one that a client carries without any local service. */
export function serve(socket: Socket): void {
  socket.on('error', () => undefined);
  // broken, it is not to be left half open by the pipe
  socket.on('close', () => socket.destroy());
  socket.once('data', (first: Buffer) => {
    socket.write(first);
    if (first[0] === COMMANDS.break) socket.resetAndDestroy();
    else socket.pipe(socket);
  });
  // what a client carries comes paused
  socket.resume();
}
