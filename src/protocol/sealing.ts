/** Values sealed at rest: tunnel keys in the database, and the state file of a bore-server. */
import { createCipheriv, createDecipheriv, hkdfSync, randomBytes } from 'node:crypto';

/** Layout of a sealed value: version (1 byte) | key id (4) | nonce (12) | tag (16) | ciphertext. */
const VERSION = 1;
const KEY_ID_BYTES = 4;
const NONCE_BYTES = 12;
const TAG_BYTES = 16;
const HEADER_BYTES = 1 + KEY_ID_BYTES + NONCE_BYTES + TAG_BYTES;

interface SealingKey {
  readonly id: Buffer;
  readonly key: Buffer;
}

/** A sealed value was changed, or was sealed under a key that is not configured (any more). */
export class SealError extends Error {
  override readonly name = 'SealError';
}

/** AES-256-GCM for small values at rest. The first secret seals; all of them open, so that secrets can be rotated. */
export class Sealer {
  readonly #keys: readonly SealingKey[];

  /** @param purpose what is sealed: the same secret gives another key for another purpose */
  constructor(secrets: readonly string[], purpose: string) {
    this.#keys = secrets.map((secret) => {
      const bytes = Buffer.from(hkdfSync('sha256', secret, '', `bore-platform ${purpose}`, KEY_ID_BYTES + 32));
      return { id: bytes.subarray(0, KEY_ID_BYTES), key: bytes.subarray(KEY_ID_BYTES) };
    });
  }

  /** @param context what the value belongs to (a row's id): it cannot be opened for another. */
  seal(plain: Buffer, context: string): Buffer<ArrayBuffer> {
    const [current] = this.#keys;
    if (!current) throw new SealError('no sealing key is configured');
    const nonce = randomBytes(NONCE_BYTES);
    const cipher = createCipheriv('aes-256-gcm', current.key, nonce).setAAD(Buffer.from(context));
    const sealed = Buffer.concat([cipher.update(plain), cipher.final()]);
    return Buffer.concat([Buffer.of(VERSION), current.id, nonce, cipher.getAuthTag(), sealed]);
  }

  /** @throws SealError */
  open(sealed: Uint8Array, context: string): Buffer {
    const bytes = Buffer.from(sealed);
    const id = bytes.subarray(1, 1 + KEY_ID_BYTES);
    const entry = this.#keys.find((candidate) => candidate.id.equals(id));
    if (bytes.length < HEADER_BYTES || bytes[0] !== VERSION || !entry)
      throw new SealError('sealed under an unknown key');
    const nonce = bytes.subarray(1 + KEY_ID_BYTES, HEADER_BYTES - TAG_BYTES);
    const decipher = createDecipheriv('aes-256-gcm', entry.key, nonce, { authTagLength: TAG_BYTES })
      .setAAD(Buffer.from(context))
      .setAuthTag(bytes.subarray(HEADER_BYTES - TAG_BYTES, HEADER_BYTES));
    try {
      return Buffer.concat([decipher.update(bytes.subarray(HEADER_BYTES)), decipher.final()]);
    } catch (cause) {
      throw new SealError('sealed value was changed', { cause });
    }
  }
}
