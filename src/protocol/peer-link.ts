/**
 * What bore-servers behind one public name say to each other. A balancer in front of port 7835 hands every connection of a
 * client to whichever server it likes: the control connection, and each connection that fetches a visitor. The server
 * that gets one for a tunnel of another, the forwarder, hands it over to the owner's peer port, and from then on only
 * copies bytes.
 *
 *     client                     forwarder                                     owner
 *       | <---- Challenge(uuid) --- |                                            |
 *       | -- Authenticate(tag) ---> |                                            |
 *       | -- Hello(port) ---------> |   whose port is it? by ranges              |
 *       |    or Accept(id)          |   or the port that the id begins with      |
 *       |                           | -- TCP connect, peer port ---------------> |
 *       |                           | <--------------------------- ownerNonce -- |
 *       |                           | -- handOver, forwarderProof -------------> |   the challenge, the tag, the message,
 *       |                           |                                            |   the client's address
 *       |                           | <--------------------------- ownerProof -- |
 *       | <============================ the connection is the owner's =========> |   bytes that the client has sent behind
 *       |                           |                                            |   its frames come first
 *
 * Frames end with NUL, as bore's do, and have at most {@link PEER_FRAME_BYTES_MAX} bytes; a refusal has no words: the
 * connection is closed.
 *
 * Who trusts whom. Both sides prove that they have the internal key: an HMAC over the owner's nonce and the hand-over,
 * which holds the forwarder's nonce, under a key derived from the internal key for this purpose; the role is part of it,
 * so that neither proof can be sent back as the other. Any key of the owner's rotation list is good, and it answers under the
 * same one. The owner then believes what the forwarder says it saw: that this challenge was fresh, and where the client is.
 * It does not believe that the client is a good one: the tag is checked against the tunnel's key as always, by the owner.
 * The forwarder sends nothing of the client's stream before it has the owner's proof. What is proved is the beginning: like
 * bore's own connections, this one is neither encrypted nor signed afterwards, and belongs on a private network.
 *
 * What ends it. Either side's end or reset is passed on. A connection that was handed over is never handed on: a server
 * that is not the owner refuses it.
 */
import { createHmac, hkdfSync, timingSafeEqual } from 'node:crypto';

import { z } from 'zod';

import { isTag } from './challenge.js';

/** The hand-over has ~350 bytes. */
export const PEER_FRAME_BYTES_MAX = 1_024;

/** A client's greeting, as the forwarder heard it. A port is named: who said Hello(0) was looked for before. */
export const HandOver = z.strictObject({
  /** The forwarder's nonce. */
  nonce: z.guid(),
  /** The client's IP address. */
  address: z.union([z.ipv4(), z.ipv6()]),
  challenge: z.guid(),
  tag: z.string().refine(isTag),
  message: z.discriminatedUnion('kind', [
    z.strictObject({ kind: z.literal('hello'), port: z.int().min(1).max(65_535) }),
    z.strictObject({ kind: z.literal('accept'), id: z.guid() }),
  ]),
});
export type HandOver = z.infer<typeof HandOver>;

/** Who proves: the forwarder first, then the owner. */
type Role = 'forwarder' | 'owner';

/** What one side proves itself by. */
export class PeerKey {
  readonly #key: Buffer;

  constructor(internalKey: string) {
    this.#key = Buffer.from(hkdfSync('sha256', internalKey, '', 'bore-platform peer link', 32));
  }

  /** The proof, 64 hex digits. @param handOver the frame as it was sent */
  prove(role: Role, ownerNonce: string, handOver: string): string {
    return createHmac('sha256', this.#key).update(`${role}\0${ownerNonce}\0${handOver}`).digest('hex');
  }

  /** Whether a proof is this key's; constant time over proofs of the right form. */
  verify(proof: string, ...proved: Parameters<PeerKey['prove']>): boolean {
    return isTag(proof) && timingSafeEqual(Buffer.from(proof, 'hex'), Buffer.from(this.prove(...proved), 'hex'));
  }
}
