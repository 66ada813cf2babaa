/**
 * Frames of bore's wire protocol: JSON text ended by a NUL byte, at most {@link MAX_FRAME_BYTES} bytes without it.
 * Source: `Delimited` in bore 0.6.0, src/shared.rs.
 */

/** TCP port of the control connection; fixed in upstream's client (`CONTROL_PORT`). */
export const CONTROL_PORT = 7835;

/** Longest frame in bytes, the ending NUL not counted (upstream: `MAX_FRAME_LENGTH`). */
export const MAX_FRAME_BYTES = 256;

/** How long either side waits for an initial message, in milliseconds (upstream: `NETWORK_TIMEOUT`). */
export const NETWORK_TIMEOUT_MS = 3_000;

const NUL = 0;

/** What upstream's server tells a client whose frames are broken (as seen from bore 0.6.0). */
const INVALID_LENGTH = 'frame error, invalid byte length';
export const UNPARSABLE = 'unable to parse message';

/** The peer broke the framing; the connection cannot be read any further. */
export class FrameError extends Error {
  override readonly name = 'FrameError';
}

/**
 * Cuts a byte stream into frames, one at a time, because what follows an `Accept` frame is no frame any more: the
 * caller takes a frame, decides, and either asks for the next or takes the {@link rest} as the stream's first bytes.
 *
 * Memory is bounded by the caller's reads: it holds what was pushed and not yet taken. A caller that stops reading
 * its socket while a frame is undecided holds at most one read.
 */
export class FrameReader {
  private pending: Buffer = Buffer.alloc(0);

  /** @param bytesMax longest frame, its NUL not counted; bore's own are never longer than the default */
  constructor(private readonly bytesMax = MAX_FRAME_BYTES) {}

  /** Adds bytes as they arrive, in any pieces. */
  push(chunk: Buffer): void {
    this.pending = this.pending.length === 0 ? chunk : Buffer.concat([this.pending, chunk]);
  }

  /**
   * The next whole frame without its NUL, or `undefined` while it is incomplete.
   * @throws FrameError when more bytes than a frame may have stand before a NUL, or the text is no valid UTF-8.
   */
  next(): string | undefined {
    const end = this.pending.indexOf(NUL);
    if (end > this.bytesMax || (end < 0 && this.pending.length > this.bytesMax)) {
      throw new FrameError(INVALID_LENGTH);
    }
    if (end < 0) return undefined;
    const frame = this.pending.subarray(0, end);
    this.pending = this.pending.subarray(end + 1);
    try {
      return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(frame);
    } catch (cause) {
      throw new FrameError(UNPARSABLE, { cause });
    }
  }

  /** The bytes behind the last frame taken; the reader is empty afterwards. */
  rest(): Buffer {
    const rest = this.pending;
    this.pending = Buffer.alloc(0);
    return rest;
  }
}
