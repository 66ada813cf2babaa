import type { Socket } from 'node:net';

/** Connections in their handshake, by source, the oldest first. */
export class Handshakes {
  private readonly sockets = new Map<Socket, string>();
  private readonly bySource = new Map<string, Set<Socket>>();
  /** When one last made room for another, by `performance.now()`. */
  lastMadeRoomAt = -Infinity;

  get count(): number {
    return this.sockets.size;
  }

  /** How many of a source there are. */
  of(source: string): number {
    return this.bySource.get(source)?.size ?? 0;
  }

  /**
   * Takes one more. When there are `max` already, the oldest of the source that has the most makes room; a newcomer of that
   * very source is not taken. So a few sources that hold connections and say nothing keep nobody else out.
   */
  enter(socket: Socket, source: string, max: number): boolean {
    if (this.sockets.size >= max) {
      const largest = this.largest();
      if (!largest || largest.size <= this.of(source) + 1) return false;
      const [oldest] = largest;
      if (!oldest) return false;
      this.leave(oldest);
      oldest.resetAndDestroy();
      this.lastMadeRoomAt = performance.now();
    }
    this.add(socket, source);
    return true;
  }

  /** It has turned out whose it is. */
  move(socket: Socket, source: string): void {
    if (this.sockets.get(socket) === source) return;
    this.leave(socket);
    this.add(socket, source);
  }

  leave(socket: Socket): void {
    const source = this.sockets.get(socket);
    if (source === undefined) return;
    this.sockets.delete(socket);
    const others = this.bySource.get(source);
    others?.delete(socket);
    if (others?.size === 0) this.bySource.delete(source);
  }

  destroyAll(): void {
    for (const socket of this.sockets.keys()) socket.destroy();
  }

  private add(socket: Socket, source: string): void {
    this.sockets.set(socket, source);
    const others = this.bySource.get(source);
    if (others) others.add(socket);
    else this.bySource.set(source, new Set([socket]));
  }

  private largest(): Set<Socket> | undefined {
    let largest: Set<Socket> | undefined;
    for (const sockets of this.bySource.values()) if (sockets.size > (largest?.size ?? 0)) largest = sockets;
    return largest;
  }
}
