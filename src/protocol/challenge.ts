/**
 * Challenge and answer of bore's wire protocol: hex(HMAC-SHA256(key, the challenge's 16 bytes)) with
 * key = SHA-256(secret). Source: bore 0.6.0, src/auth.rs.
 */
import { createHash, createHmac, randomBytes, timingSafeEqual } from 'node:crypto';

/** An HMAC-SHA256 tag in hex. */
const TAG = /^[0-9a-f]{64}$/i;

/** 128 random bits in UUID form; upstream accepts any bits there. */
export function randomUuid(): string {
  return uuidOf(randomBytes(16));
}

/** 16 bytes in UUID form. */
export function uuidOf(bytes: Buffer): string {
  const hex = bytes.toString('hex');
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20)}`;
}

/** The 32-byte HMAC key of a secret. Whoever has it can answer for the secret: treat it as the secret. */
export function keyOfSecret(secret: string): Buffer {
  return createHash('sha256').update(secret).digest();
}

/** The client's answer to a challenge, 64 hex digits. */
export function answerChallenge(key: Buffer, challenge: string): string {
  return tagOf(key, challenge).toString('hex');
}

/** Whether `tag` could answer any challenge at all. */
export function isTag(tag: string): boolean {
  return TAG.test(tag);
}

/** Whether `tag` answers the challenge under `key`; constant time over tags of the right form. */
export function verifyAnswer(key: Buffer, challenge: string, tag: string): boolean {
  return isTag(tag) && timingSafeEqual(tagOf(key, challenge), Buffer.from(tag, 'hex'));
}

function tagOf(key: Buffer, challenge: string): Buffer {
  return createHmac('sha256', key)
    .update(Buffer.from(challenge.replaceAll('-', ''), 'hex'))
    .digest();
}
