/**
 * What bore's client and server say to each other. The shapes are serde's externally tagged enums of bore 0.6.0,
 * src/shared.rs, and the conversation is:
 *
 *     client                                server
 *       | -- TCP connect, control port ------> |
 *       | <------------- Challenge(uuid) ----- |
 *       | -- Authenticate(hex hmac) ---------> |
 *       | -- Hello(port or 0) ---------------> |   sent at once, without waiting for a verdict
 *       | <------- Hello(public port) -------- |   or Error(text), and the server closes
 *       | <------------ Connection(id) ------- |   one for each visitor
 *       | <------------------ Heartbeat ------ |   any time; means nothing
 *
 *       | -- a new TCP connection for id ----> |
 *       | <------------- Challenge(uuid) ----- |
 *       | -- Authenticate(hex hmac) ---------> |
 *       | -- Accept(id) ---------------------> |   every byte after this frame, in both directions,
 *       | <========= visitor's stream =======> |   is the visitor's
 *
 * A server without a secret sends no `Challenge`, and the client starts with `Hello` or `Accept`.
 */
import { z } from 'zod';

import { FrameError, MAX_FRAME_BYTES, UNPARSABLE } from './frames.js';

/** A TCP port on the wire (Rust: `u16`); 0 means "any" in a client's `Hello`. */
const Port = z.int().min(0).max(65_535);

/** Any 128 bits in UUID form: upstream parses every version. */
const Uuid = z.guid();

const ClientMessage = z.union([
  z
    .strictObject({ Authenticate: z.string() })
    .transform(({ Authenticate }) => ({ kind: 'authenticate', tag: Authenticate }) as const),
  z.strictObject({ Hello: Port }).transform(({ Hello }) => ({ kind: 'hello', port: Hello }) as const),
  z.strictObject({ Accept: Uuid }).transform(({ Accept }) => ({ kind: 'accept', id: Accept.toLowerCase() }) as const),
]);

const ServerMessage = z.union([
  z.literal('Heartbeat').transform(() => ({ kind: 'heartbeat' }) as const),
  z
    .strictObject({ Challenge: Uuid })
    .transform(({ Challenge }) => ({ kind: 'challenge', challenge: Challenge }) as const),
  z.strictObject({ Hello: Port }).transform(({ Hello }) => ({ kind: 'hello', port: Hello }) as const),
  z
    .strictObject({ Connection: Uuid })
    .transform(({ Connection }) => ({ kind: 'connection', id: Connection.toLowerCase() }) as const),
  z.strictObject({ Error: z.string() }).transform(({ Error }) => ({ kind: 'error', text: Error }) as const),
]);

/** A message that a client sends. */
export type ClientMessage = z.output<typeof ClientMessage>;
/** A message that a server sends. */
export type ServerMessage = z.output<typeof ServerMessage>;

/** @throws FrameError when the frame is no JSON or no message that a client may send. */
export function parseClientMessage(frame: string): ClientMessage {
  return parse(ClientMessage, frame);
}

/** @throws FrameError when the frame is no JSON or no message that a server may send. */
export function parseServerMessage(frame: string): ServerMessage {
  return parse(ServerMessage, frame);
}

function parse<T>(schema: z.ZodType<T>, frame: string): T {
  let json: unknown;
  try {
    json = JSON.parse(frame);
  } catch (cause) {
    throw new FrameError(UNPARSABLE, { cause });
  }
  const message = schema.safeParse(json);
  if (!message.success) throw new FrameError(UNPARSABLE);
  return message.data;
}

/** The bytes of a client's message, NUL included. */
export function encodeClientMessage(message: ClientMessage): Buffer {
  switch (message.kind) {
    case 'authenticate':
      return encode({ Authenticate: message.tag });
    case 'hello':
      return encode({ Hello: message.port });
    case 'accept':
      return encode({ Accept: message.id });
  }
}

/** The bytes of a server's message, NUL included. */
export function encodeServerMessage(message: ServerMessage): Buffer {
  switch (message.kind) {
    case 'heartbeat':
      return encode('Heartbeat');
    case 'challenge':
      return encode({ Challenge: message.challenge });
    case 'hello':
      return encode({ Hello: message.port });
    case 'connection':
      return encode({ Connection: message.id });
    case 'error':
      return encode({ Error: fitting(message.text) });
  }
}

/** As much of an error's text as a frame holds: whoever is told it must hear something. */
function fitting(text: string): string {
  let shown = text;
  while (Buffer.byteLength(JSON.stringify({ Error: shown })) > MAX_FRAME_BYTES) shown = shown.slice(0, -1);
  return shown;
}

function encode(json: unknown): Buffer {
  const frame = Buffer.from(`${JSON.stringify(json)}\0`);
  if (frame.length - 1 > MAX_FRAME_BYTES) throw new FrameError(`frame is longer than ${MAX_FRAME_BYTES} bytes`);
  return frame;
}
