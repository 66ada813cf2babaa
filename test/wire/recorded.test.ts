/**
 * What bore 0.6.0's own client and server put on the wire, recorded from the binaries. Replaying it needs no binary.
 */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { answerChallenge, keyOfSecret, verifyAnswer } from '../../src/protocol/challenge.js';
import { encodeClientMessage, encodeServerMessage, parseClientMessage } from '../../src/protocol/messages.js';
import { type BoreServerProcess, startBoreServer } from '../harness/bore-server.js';
import { readAll } from '../harness/sockets.js';
import { WireClient } from '../harness/wire-client.js';

const SECRET = 'tk_recorded';

/** `bore local 18080 --to … --secret tk_recorded`, challenged with known ids. */
const FROM_CLIENT = [
  {
    challenge: '00112233-4455-6677-8899-aabbccddeeff',
    tag: '54af04de72632e3fbadf78948e67d57b12f987fd45cc09673b12f3a9afd89b29',
    bytes: '{"Authenticate":"54af04de72632e3fbadf78948e67d57b12f987fd45cc09673b12f3a9afd89b29"}\0{"Hello":0}\0',
    message: { kind: 'hello', port: 0 },
  },
  {
    challenge: '01020304-0506-0708-090a-0b0c0d0e0f10',
    tag: '1546f0f16070687f526fb85dd4fcd114d710e6c28e59c439b8d435a154b6c2cc',
    bytes:
      '{"Authenticate":"1546f0f16070687f526fb85dd4fcd114d710e6c28e59c439b8d435a154b6c2cc"}\0' +
      '{"Accept":"ffeeddcc-bbaa-9988-7766-554433221100"}\0',
    message: { kind: 'accept', id: 'ffeeddcc-bbaa-9988-7766-554433221100' },
  },
] as const;

/** What `bore server --secret tk_recorded` answers behind its challenge, before it closes. */
const FROM_SERVER = [
  { client: '{"Hello":10550}\0', server: '{"Error":"server requires secret, but no secret was provided"}\0' },
  { client: '{"Hello":1}\0', server: '{"Error":"server requires secret, but no secret was provided"}\0' },
  {
    client: '{"Accept":"ffeeddcc-bbaa-9988-7766-554433221100"}\0',
    server: '{"Error":"server requires secret, but no secret was provided"}\0',
  },
  { client: 'garbage\0', server: '{"Error":"unable to parse message"}\0' },
  { client: '{"Authenticate":"ab"}\0', server: '{"Error":"invalid secret"}\0' },
  { client: 'x'.repeat(300), server: '{"Error":"frame error, invalid byte length"}\0' },
  {
    client: `{"Authenticate":"${'0'.repeat(64)}"}\0{"Hello":10550}\0`,
    server: '{"Error":"invalid secret"}\0',
  },
] as const;

let server: BoreServerProcess;

beforeAll(async () => {
  server = await startBoreServer({ secret: SECRET, ports: { min: 10_500, max: 10_600 }, address: '127.0.2.1' });
});

afterAll(() => server?.stop());

describe('upstream’s client', () => {
  it.each(FROM_CLIENT)('is understood to the byte: $message', ({ challenge, tag, bytes, message }) => {
    const key = keyOfSecret(SECRET);
    expect(answerChallenge(key, challenge)).toBe(tag);
    expect(verifyAnswer(key, challenge, tag)).toBe(true);
    expect(verifyAnswer(keyOfSecret('tk_other'), challenge, tag)).toBe(false);
    expect(bytes.split('\0').slice(0, 2).map(parseClientMessage)).toEqual([{ kind: 'authenticate', tag }, message]);
    expect(Buffer.concat([encodeClientMessage({ kind: 'authenticate', tag }), encodeClientMessage(message)])).toEqual(
      Buffer.from(bytes),
    );
  });
});

describe('our server', () => {
  it.each(FROM_SERVER)('answers $client in upstream’s words', async ({ client, server: answer }) => {
    const wire = await WireClient.connect(server);
    expect(await wire.next()).toMatchObject({ kind: 'challenge' });
    wire.send(client);
    const { bytes, how } = await readAll(wire.detach());
    expect(bytes.toString()).toBe(answer);
    expect(how).toBe('finished');
  });

  it('encodes its messages as upstream’s does', () => {
    const id = '649c9201-ddc2-4378-b48b-ca663134b12f';
    expect(
      [
        { kind: 'challenge', challenge: id } as const,
        { kind: 'hello', port: 10_042 } as const,
        { kind: 'heartbeat' } as const,
        { kind: 'connection', id } as const,
        { kind: 'error', text: 'invalid secret' } as const,
      ].map((message) => encodeServerMessage(message).toString()),
    ).toEqual([
      `{"Challenge":"${id}"}\0`,
      '{"Hello":10042}\0',
      '"Heartbeat"\0',
      `{"Connection":"${id}"}\0`,
      '{"Error":"invalid secret"}\0',
    ]);
  });
});
