/** A dump on its way to the disk and back: encrypted with age where that is asked for (https://age-encryption.org). */
import { createHash } from 'node:crypto';
import { createReadStream, createWriteStream } from 'node:fs';
import { open } from 'node:fs/promises';
import path from 'node:path';
import { Readable, type Writable } from 'node:stream';
import { pipeline } from 'node:stream/promises';

import { Decrypter, Encrypter } from 'age-encryption';

import { BackupError, reasonOf } from './backup-error.js';

/** What a file is known by. */
export interface Digest {
  readonly bytes: number;
  readonly sha256: string;
}

/**
 * Encrypts for a public key of age.
 * @throws BackupError when it is none
 */
export function encrypterFor(recipient: string): Encrypter {
  const encrypter = new Encrypter();
  try {
    encrypter.addRecipient(recipient);
  } catch (cause) {
    throw new BackupError(`BACKUP_AGE_RECIPIENT is not a public key of age: ${reasonOf(cause)}`, { cause });
  }
  return encrypter;
}

/**
 * Writes a file, which is there already, and resolves when it is on the disk.
 * @param encrypter not given: in clear
 */
export async function writeArchive(
  source: Readable,
  file: string,
  encrypter: Encrypter | undefined,
  signal: AbortSignal,
): Promise<Digest> {
  const hash = createHash('sha256');
  let bytes = 0;
  const content = encrypter ? fromWeb(await encrypter.encrypt(toWeb(source))) : source;
  const count = async function* (chunks: AsyncIterable<Uint8Array>) {
    for await (const chunk of chunks) {
      hash.update(chunk);
      bytes += chunk.length;
      yield chunk;
    }
  };
  // `flush`: fsync before it is closed
  await pipeline(content, count, createWriteStream(file, { flags: 'r+', flush: true }), { signal });
  return { bytes, sha256: hash.digest('hex') };
}

/** Reads a file to its end. */
export async function digestOf(file: string, signal: AbortSignal): Promise<Digest> {
  const hash = createHash('sha256');
  let bytes = 0;
  await pipeline(
    createReadStream(file),
    async (chunks: AsyncIterable<Buffer>) => {
      for await (const chunk of chunks) {
        hash.update(chunk);
        bytes += chunk.length;
      }
    },
    { signal },
  );
  return { bytes, sha256: hash.digest('hex') };
}

/**
 * What `pg_dump` wrote.
 * @param identity age's secret key, for an encrypted one
 * @throws BackupError when the key does not fit
 */
export async function readArchive(file: string, identity: string | undefined): Promise<Readable> {
  const stream = createReadStream(file);
  if (identity === undefined) return stream;
  try {
    const decrypter = new Decrypter();
    decrypter.addIdentity(identity);
    return fromWeb(await decrypter.decrypt(toWeb(stream)));
  } catch (cause) {
    stream.destroy();
    throw new BackupError(`${file} cannot be decrypted: ${reasonOf(cause)}`, { cause });
  }
}

/** Gives a program an archive to read. That it stops reading before the end is no failure: its exit code tells. */
export async function feed(archive: Readable, reader: Writable, signal: AbortSignal): Promise<void> {
  try {
    await pipeline(archive, reader, { signal });
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? error.code : undefined;
    if (code !== 'EPIPE' && code !== 'ECONNRESET' && code !== 'ERR_STREAM_PREMATURE_CLOSE') throw error;
  }
}

/** Makes the names in a folder last over a power cut. */
export async function syncFolder(file: string): Promise<void> {
  const folder = await open(path.dirname(file));
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
}

function toWeb(stream: Readable): globalThis.ReadableStream<Uint8Array> {
  return Readable.toWeb(stream);
}

function fromWeb(stream: globalThis.ReadableStream<Uint8Array>): Readable {
  return Readable.fromWeb(stream);
}
