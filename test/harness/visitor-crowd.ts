import { once } from 'node:events';
import net, { type Socket } from 'node:net';

/** How a visitor fared. */
interface Guest {
  readonly socket: Socket;
  isOpen: boolean;
}

/** Many visitors at once, from many addresses, who say nothing. */
export class VisitorCrowd {
  private readonly guests: Guest[] = [];

  /** @param sources addresses that they come from, in turn */
  constructor(
    private readonly host: string,
    private readonly sources: readonly string[],
  ) {}

  /** Those whose connection is open. */
  get open(): number {
    return this.guests.filter(({ isOpen }) => isOpen).length;
  }

  /** One more for each port, at once. One that is refused on the way is not an error here. */
  async come(ports: readonly number[]): Promise<void> {
    await Promise.all(
      ports.map(async (port) => {
        const localAddress = this.sources[this.guests.length % this.sources.length];
        const socket = net.connect({ host: this.host, port, ...(localAddress !== undefined && { localAddress }) });
        const guest: Guest = { socket, isOpen: true };
        this.guests.push(guest);
        socket.on('error', () => undefined);
        // sent away: reset, or finished and answered so
        socket.on('close', () => (guest.isOpen = false)).resume();
        await Promise.race([once(socket, 'connect'), once(socket, 'close')]).catch(() => undefined);
      }),
    );
  }

  /** All leave. Resolves when they are gone, on our side. */
  async leave(count = Infinity): Promise<void> {
    const leaving = this.guests.splice(0, count).map(({ socket }) => socket);
    await Promise.all(
      leaving
        .filter(({ closed }) => !closed)
        .map(async (socket) => {
          const closed = once(socket, 'close');
          socket.destroy();
          await closed;
        }),
    );
  }
}
