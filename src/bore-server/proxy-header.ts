/**
 * The PROXY protocol, versions 1 and 2: the first bytes of a connection say whom it is for. Source: HAProxy's
 * `doc/proxy-protocol.txt`.
 */
import { isIPv4, isIPv6 } from 'node:net';

import { unmapped } from './networks.js';

/** Both ends of the connection that is handed on. */
export interface ProxiedConnection {
  readonly sourceAddress: string;
  readonly sourcePort: number;
  readonly destinationAddress: string;
  readonly destinationPort: number;
}

/** The connection does not begin with a header that we understand. */
export class ProxyHeaderError extends Error {
  override readonly name = 'ProxyHeaderError';
}

const V1_START = Buffer.from('PROXY ');
/** The longest line of version 1, CRLF included (§2.1). */
const V1_BYTES_MAX = 107;
const V2_SIGNATURE = Buffer.from('\r\n\r\n\0\r\nQUIT\n', 'latin1');
const V2_FIXED_BYTES = 16;
/** Addresses and extensions of version 2; the specification expects receivers to take 536 (§2.2). */
const V2_REST_BYTES_MAX = 1_024;

/** The header's bytes. Addresses of two families are both written as IPv6. */
export function encodeProxyHeader(version: 'v1' | 'v2', connection: ProxiedConnection): Buffer {
  const plain = [connection.sourceAddress, connection.destinationAddress].map(unmapped);
  const isV4 = plain.every(isIPv4);
  const [source = '', destination = ''] = isV4 ? plain : plain.map(asIPv6);
  if (version === 'v1') {
    const { sourcePort, destinationPort } = connection;
    return Buffer.from(`PROXY ${isV4 ? 'TCP4' : 'TCP6'} ${source} ${destination} ${sourcePort} ${destinationPort}\r\n`);
  }
  const ports = Buffer.alloc(4);
  ports.writeUInt16BE(connection.sourcePort, 0);
  ports.writeUInt16BE(connection.destinationPort, 2);
  const rest = Buffer.concat([bytesOf(source), bytesOf(destination), ports]);
  // version 2, command PROXY; family and SOCK_STREAM
  const fixed = Buffer.from([0x21, isV4 ? 0x11 : 0x21, 0, rest.length]);
  return Buffer.concat([V2_SIGNATURE, fixed, rest]);
}

/**
 * Reads a header at the beginning of `bytes`: how long it is and what it says, or `undefined` while it is incomplete.
 * `connection` is left out where the header speaks for the proxy itself (UNKNOWN, LOCAL).
 * @throws ProxyHeaderError
 */
export function parseProxyHeader(bytes: Buffer): { length: number; connection?: ProxiedConnection } | undefined {
  const start = bytes.subarray(0, V2_SIGNATURE.length);
  if (start.equals(V2_SIGNATURE.subarray(0, start.length))) return parseV2(bytes);
  const start1 = bytes.subarray(0, V1_START.length);
  if (start1.equals(V1_START.subarray(0, start1.length))) return parseV1(bytes);
  throw new ProxyHeaderError('the connection does not begin with a PROXY protocol header');
}

function parseV1(bytes: Buffer): ReturnType<typeof parseProxyHeader> {
  const end = bytes.subarray(0, V1_BYTES_MAX).indexOf('\r\n');
  if (end < 0) {
    if (bytes.length >= V1_BYTES_MAX) throw new ProxyHeaderError('PROXY protocol line is too long');
    return undefined;
  }
  const [, family, source = '', destination = '', sourcePort = '', destinationPort = '', ...more] = bytes
    .toString('latin1', 0, end)
    .split(' ');
  const length = end + 2;
  if (family === 'UNKNOWN') return { length };
  const isAddress = family === 'TCP4' ? isIPv4 : family === 'TCP6' ? isIPv6 : () => false;
  const ports = [sourcePort, destinationPort].map((text) => (/^\d{1,5}$/.test(text) ? Number(text) : Infinity));
  if (!isAddress(source) || !isAddress(destination) || ports.some((port) => port > 65_535) || more.length > 0) {
    throw new ProxyHeaderError('PROXY protocol line is malformed');
  }
  const [from = 0, to = 0] = ports;
  return {
    length,
    connection: { sourceAddress: source, sourcePort: from, destinationAddress: destination, destinationPort: to },
  };
}

function parseV2(bytes: Buffer): ReturnType<typeof parseProxyHeader> {
  if (bytes.length < V2_FIXED_BYTES) return undefined;
  const [command = 0, family = 0] = bytes.subarray(12, 14);
  const rest = bytes.readUInt16BE(14);
  if (rest > V2_REST_BYTES_MAX) throw new ProxyHeaderError('PROXY protocol header is too long');
  if (command >> 4 !== 2 || (command & 15) > 1) throw new ProxyHeaderError('PROXY protocol version is unknown');
  const length = V2_FIXED_BYTES + rest;
  if (bytes.length < length) return undefined;
  const addressBytes = family === 0x11 ? 4 : family === 0x21 ? 16 : 0;
  // LOCAL, or a family that we do not carry
  if ((command & 15) === 0 || addressBytes === 0) return { length };
  if (rest < 2 * addressBytes + 4) throw new ProxyHeaderError('PROXY protocol header is too short');
  const at = V2_FIXED_BYTES;
  const ports = at + 2 * addressBytes;
  return {
    length,
    connection: {
      sourceAddress: textOf(bytes.subarray(at, at + addressBytes)),
      sourcePort: bytes.readUInt16BE(ports),
      destinationAddress: textOf(bytes.subarray(at + addressBytes, ports)),
      destinationPort: bytes.readUInt16BE(ports + 2),
    },
  };
}

function asIPv6(address: string): string {
  return isIPv4(address) ? `::ffff:${address}` : address;
}

function bytesOf(address: string): Buffer {
  if (isIPv4(address)) return Buffer.from(address.split('.').map(Number));
  // an IPv4 tail is two groups
  const hex = address.replace(/(\d+)\.(\d+)\.(\d+)\.(\d+)$/, (_, a, b, c, d) =>
    [Number(a) * 256 + Number(b), Number(c) * 256 + Number(d)].map((group) => group.toString(16)).join(':'),
  );
  const [head = '', tail = ''] = hex.replace(/%.*$/, '').split('::', 2);
  const before = head === '' ? [] : head.split(':');
  const after = tail === '' ? [] : tail.split(':');
  const zeros = Array.from({ length: 8 - before.length - after.length }, () => '0');
  const groups = [...before, ...zeros, ...after].map((group) => Number.parseInt(group, 16));
  return Buffer.from(groups.flatMap((group) => [group >> 8, group & 255]));
}

function textOf(bytes: Buffer): string {
  if (bytes.length === 4) return bytes.join('.');
  const groups = [0, 2, 4, 6, 8, 10, 12, 14].map((i) => bytes.readUInt16BE(i).toString(16));
  const text = groups.join(':');
  return text.startsWith('0:0:0:0:0:ffff:') ? bytes.subarray(12).join('.') : text;
}
