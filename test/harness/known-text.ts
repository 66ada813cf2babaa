/** What both ends of a tested stream say, over and over; its length divides no buffer, so that a lost or doubled one shows. */
const TEXT = Buffer.from(Array.from({ length: 99_991 }, (_, i) => (i * 7 + (i >> 8)) & 0xff));

/** A piece of the endless text, from byte `at` on; at most `most` bytes, at least one. */
export function textAt(at: number, most: number): Buffer {
  const from = at % TEXT.length;
  return TEXT.subarray(from, from + most);
}

/** Whether `chunk` is what the text says from byte `at` on. */
export function isText(chunk: Buffer, at: number): boolean {
  for (let i = 0; i < chunk.length;) {
    const expected = textAt(at + i, chunk.length - i);
    if (!chunk.subarray(i, i + expected.length).equals(expected)) return false;
    i += expected.length;
  }
  return true;
}
