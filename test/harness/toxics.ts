/** What goes wrong on one direction of a connection; toxiproxy's toxics by what they do. None by default. */
export interface Toxics {
  /** Each piece, and the end, arrives this much later, ± {@link jitterMs}; order is kept. */
  readonly latencyMs: number;
  readonly jitterMs: number;
  /** 0: as fast as the network. */
  readonly bytesPerSecond: number;
  /** Pieces are cut into slices of at most so many bytes, each written by itself; 0: not at all. */
  readonly sliceBytes: number;
  /** Between two slices, so that the receiver reads them one by one. */
  readonly sliceDelayMs: number;
  /** What arrives is taken, and goes nowhere: data, ends and resets. */
  readonly swallow: boolean;
  /** An end is passed on this much later. */
  readonly slowCloseMs: number;
  /** The connection is over once so many bytes of it have been delivered in this direction. */
  readonly limit: { readonly bytes: number; readonly how: 'close' | 'reset' } | undefined;
}

export const HEALTHY: Toxics = {
  latencyMs: 0,
  jitterMs: 0,
  bytesPerSecond: 0,
  sliceBytes: 0,
  sliceDelayMs: 0,
  swallow: false,
  slowCloseMs: 0,
  limit: undefined,
};
