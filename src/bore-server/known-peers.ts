import type { Peer, PeerDirectory } from '../protocol/peers.js';

/** The other bore-servers of our public name, as the control plane said last: that counts while it is away, too. */
export class KnownPeers {
  private directory: PeerDirectory | undefined;

  /** @param onChange called when what should be kept on disk has changed */
  constructor(
    kept: PeerDirectory | undefined,
    private readonly onChange: () => void,
  ) {
    this.directory = kept;
  }

  /** Empty before anything was said. */
  get version(): string {
    return this.directory?.version ?? '';
  }

  get count(): number {
    return this.directory?.peers.length ?? 0;
  }

  kept(): PeerDirectory | undefined {
    return this.directory;
  }

  update(directory: PeerDirectory): void {
    this.directory = directory;
    this.onChange();
  }

  /** Whose public port it is. */
  ownerOf(port: number): Peer | undefined {
    return this.directory?.peers.find(({ portRange: { min, max } }) => port >= min && port <= max);
  }
}
