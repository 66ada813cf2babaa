import fc from 'fast-check';
import { describe, expect, it } from 'vitest';

import { FrameError, FrameReader, MAX_FRAME_BYTES } from '../../src/protocol/frames.js';
import { encodeServerMessage, parseClientMessage, parseServerMessage } from '../../src/protocol/messages.js';

/** Pushes `bytes` in pieces that end at `cuts`, and takes whatever frames there are after each piece. */
function readInPieces(bytes: Buffer, cuts: readonly number[]): { frames: string[]; rest: Buffer } {
  const reader = new FrameReader();
  const frames: string[] = [];
  const ends = [...new Set(cuts.map((cut) => cut % (bytes.length + 1)))].sort((a, b) => a - b);
  let from = 0;
  for (const to of [...ends, bytes.length]) {
    reader.push(bytes.subarray(from, to));
    from = to;
    for (let frame = reader.next(); frame !== undefined; frame = reader.next()) frames.push(frame);
  }
  return { frames, rest: reader.rest() };
}

const frameText = fc
  .string({ unit: 'grapheme', maxLength: 60 })
  .filter((text) => !text.includes('\0') && Buffer.byteLength(text) <= MAX_FRAME_BYTES);

describe('frames', () => {
  it('arrive whole and in order, however the stream is cut', () => {
    fc.assert(
      fc.property(
        fc.array(frameText, { maxLength: 8 }),
        fc.uint8Array({ maxLength: 200 }).map((bytes) => bytes.filter((byte) => byte !== 0)),
        fc.array(fc.nat()),
        (texts, tail, cuts) => {
          const bytes = Buffer.concat([Buffer.from(texts.map((text) => `${text}\0`).join('')), tail]);
          expect(readInPieces(bytes, cuts)).toEqual({ frames: texts, rest: Buffer.from(tail) });
        },
      ),
    );
  });

  it('may have 256 bytes, and not one more, with or without an end', () => {
    expect(readInPieces(Buffer.from(`${'x'.repeat(256)}\0`), []).frames).toEqual(['x'.repeat(256)]);
    expect(() => readInPieces(Buffer.from(`${'x'.repeat(257)}\0`), [])).toThrow(FrameError);
    expect(() => readInPieces(Buffer.from('x'.repeat(257)), [])).toThrow(FrameError);
    expect(readInPieces(Buffer.from('x'.repeat(256)), [])).toEqual({ frames: [], rest: Buffer.alloc(256, 'x') });
  });

  it('of arbitrary bytes end in frames or a FrameError, and never hold more than a frame and a read', () => {
    fc.assert(
      fc.property(fc.array(fc.uint8Array({ maxLength: 600 })), (pieces) => {
        const reader = new FrameReader();
        try {
          for (const piece of pieces) {
            reader.push(Buffer.from(piece));
            while (reader.next() !== undefined);
          }
          expect(reader.rest().length).toBeLessThanOrEqual(MAX_FRAME_BYTES);
        } catch (error) {
          expect(error).toBeInstanceOf(FrameError);
        }
      }),
    );
  });
});

describe('messages', () => {
  it('of errors fit into a frame, whatever their text', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary', maxLength: 600 }), (text) => {
        const frame = encodeServerMessage({ kind: 'error', text });
        expect(frame.length).toBeLessThanOrEqual(MAX_FRAME_BYTES + 1);
        expect(frame.at(-1)).toBe(0);
      }),
    );
  });

  it('of arbitrary text and JSON are understood or refused with a FrameError', () => {
    const parse = (text: string) => {
      for (const parser of [parseClientMessage, parseServerMessage]) {
        try {
          parser(text);
        } catch (error) {
          expect(error).toBeInstanceOf(FrameError);
        }
      }
    };
    fc.assert(fc.property(fc.string(), parse));
    fc.assert(fc.property(fc.json(), parse));
  });

  it.each([
    '{"Hello":65536}',
    '{"Hello":-1}',
    '{"Hello":1.5}',
    '{"Hello":"1"}',
    '{"Hello":1,"Accept":"x"}',
    '{"Hello":1,"more":1}',
    '{"hello":1}',
    '{"Accept":"1"}',
    '{"Accept":null}',
    '["Hello",1]',
    '"Hello"',
    'null',
    '',
    '{"__proto__":{"Hello":1}}',
  ])('refuses %s', (text) => {
    expect(() => parseClientMessage(text)).toThrow(FrameError);
  });
});
