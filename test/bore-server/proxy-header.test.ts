import fc from 'fast-check';
import { describe, expect, it } from 'vitest';

import { encodeProxyHeader, parseProxyHeader, ProxyHeaderError } from '../../src/bore-server/proxy-header.js';

const connection = {
  sourceAddress: '192.0.2.1',
  sourcePort: 56_324,
  destinationAddress: '198.51.100.7',
  destinationPort: 443,
};
/** Example of HAProxy's specification, §2.1 and §2.2, put together by hand. */
const V1 = 'PROXY TCP4 192.0.2.1 198.51.100.7 56324 443\r\n';
const V2 = '0d0a0d0a000d0a515549540a' + '2111000c' + 'c0000201' + 'c6336407' + 'dc04' + '01bb';

describe('a PROXY protocol header', () => {
  it('is written as the specification shows', () => {
    expect(encodeProxyHeader('v1', connection).toString()).toBe(V1);
    expect(encodeProxyHeader('v2', connection).toString('hex')).toBe(V2);
    const mapped = { ...connection, sourceAddress: '::ffff:192.0.2.1' };
    expect(encodeProxyHeader('v2', mapped).toString('hex')).toBe(V2);
    const mixed = encodeProxyHeader('v1', { ...connection, destinationAddress: '2001:db8::1' }).toString();
    expect(mixed).toBe('PROXY TCP6 ::ffff:192.0.2.1 2001:db8::1 56324 443\r\n');
  });

  it.each(['v1', 'v2'] as const)('of any connection is read back, however it is cut: %s', (version) => {
    const port = fc.integer({ min: 0, max: 65_535 });
    fc.assert(
      fc.property(
        fc.oneof(fc.tuple(fc.ipV4(), fc.ipV4()), fc.tuple(fc.ipV6(), fc.ipV6())),
        port,
        port,
        fc.nat(),
        ([sourceAddress, destinationAddress], sourcePort, destinationPort, cut) => {
          const bytes = encodeProxyHeader(version, { sourceAddress, sourcePort, destinationAddress, destinationPort });
          expect(parseProxyHeader(bytes.subarray(0, cut % bytes.length))).toBeUndefined();
          const parsed = parseProxyHeader(Buffer.concat([bytes, Buffer.from('GET /')]));
          expect(parsed?.length).toBe(bytes.length);
          expect(parsed?.connection).toMatchObject({ sourcePort, destinationPort });
          // an address has many spellings: written again, it is the same bytes
          if (parsed?.connection)
            expect(encodeProxyHeader('v2', parsed.connection)).toEqual(
              encodeProxyHeader('v2', {
                sourceAddress,
                sourcePort,
                destinationAddress,
                destinationPort,
              }),
            );
        },
      ),
    );
  });

  it('that speaks for the proxy itself names nobody', () => {
    expect(parseProxyHeader(Buffer.from('PROXY UNKNOWN\r\n'))).toEqual({ length: 15 });
    expect(parseProxyHeader(Buffer.from('0d0a0d0a000d0a515549540a' + '20000000', 'hex'))).toEqual({ length: 16 });
  });

  it.each([
    'GET / HTTP/1.1\r\n',
    'PROXY TCP4 192.0.2.1 198.51.100.7 56324\r\n',
    'PROXY TCP4 192.0.2.1 198.51.100.7 56324 65536\r\n',
    'PROXY TCP4 2001:db8::1 198.51.100.7 1 2\r\n',
    'PROXY TCP4 192.0.2.1 198.51.100.7 1 2 3\r\n',
    'PROXY UDP4 192.0.2.1 198.51.100.7 1 2\r\n',
    `PROXY TCP4 ${'1'.repeat(120)}`,
    '\r\n\r\n\0\r\nQUIT\n\x31\x11\0\x0c',
    '\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff',
    '\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x04abcd',
  ])('that is broken is refused: %j', (text) => {
    expect(() => parseProxyHeader(Buffer.from(text, 'latin1'))).toThrow(ProxyHeaderError);
  });

  it('of arbitrary bytes is read, waited for or refused', () => {
    fc.assert(
      fc.property(
        fc.constantFrom('', 'PROXY ', '\r\n\r\n\0\r\nQUIT\n'),
        fc.uint8Array({ maxLength: 300 }),
        (start, bytes) => {
          try {
            const parsed = parseProxyHeader(Buffer.concat([Buffer.from(start), bytes]));
            if (parsed) expect(parsed.length).toBeLessThanOrEqual(start.length + bytes.length);
          } catch (error) {
            expect(error).toBeInstanceOf(ProxyHeaderError);
          }
        },
      ),
    );
  });
});
