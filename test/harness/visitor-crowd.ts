import { once } from 'node:events';
import net, { type Socket } from 'node:net';

/** Many visitors at once, from many addresses, who say nothing. */
export class VisitorCrowd {
  /** Those whose connection is open, in the order in which they came. */
  private readonly guests = new Set<Socket>();
  private came = 0;

  /** @param sources addresses that they come from, in turn */
  constructor(
    private readonly host: string,
    private readonly sources: readonly string[],
  ) {}

  /** Those whose connection is open. */
  get open(): number {
    return this.guests.size;
  }

  /** One more for each port, at once. One that is refused on the way is not an error here. */
  async come(ports: readonly number[]): Promise<void> {
    await Promise.all(
      ports.map(async (port) => {
        const localAddress = this.sources[this.came++ % this.sources.length];
        const socket = net.connect({ host: this.host, port, ...(localAddress !== undefined && { localAddress }) });
        this.guests.add(socket);
        socket.on('error', () => undefined);
        // sent away: reset, or finished and answered so
        socket.on('close', () => this.guests.delete(socket)).resume();
        await Promise.race([once(socket, 'connect'), once(socket, 'close')]).catch(() => undefined);
      }),
    );
  }

  /** The first so many of them leave, or all. Resolves when they are gone, on our side. */
  async leave(count = Infinity): Promise<void> {
    await Promise.all(
      [...this.guests].slice(0, count).map(async (socket) => {
        const closed = once(socket, 'close');
        socket.destroy();
        await closed;
      }),
    );
  }
}
