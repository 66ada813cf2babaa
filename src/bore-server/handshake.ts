import { isTag, randomUuid } from '../protocol/challenge.js';
import { type ClientMessage, parseClientMessage } from '../protocol/messages.js';
import type { FrameConnection } from './frame-connection.js';

/** What a client said first. The tag is not verified yet: only the message names whose key it must answer to. */
export interface Greeting {
  readonly challenge: string;
  readonly tag: string;
  readonly message: Extract<ClientMessage, { kind: 'hello' | 'accept' }>;
}

/** A client is refused; the text is what it is told. */
export class Refusal extends Error {
  override readonly name = 'Refusal';
}

/** A client is refused because it could not prove who it is: whoever makes many of these guesses. */
export class Rejection extends Refusal {}

/** A client is refused because nobody could be asked whether it may: the fault is on our side. */
export class Unanswered extends Refusal {}

/**
 * Challenges a client and hears its answer and its wish, which it sends together (src/protocol/messages.ts).
 * @throws Refusal, FrameError, ConnectionEnded
 */
export async function greet(connection: FrameConnection): Promise<Greeting> {
  const challenge = randomUuid();
  connection.send({ kind: 'challenge', challenge });
  const first = parseClientMessage(await connection.next());
  if (first.kind !== 'authenticate') throw new Rejection('server requires secret, but no secret was provided');
  if (!isTag(first.tag)) throw new Rejection('invalid secret');
  const message = parseClientMessage(await connection.next());
  if (message.kind === 'authenticate') throw new Rejection('unexpected authenticate');
  return { challenge, tag: first.tag, message };
}
