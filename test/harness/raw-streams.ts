/** Streams of events begun by hand, on sockets whose reader the test can stop. */
import { randomBytes } from 'node:crypto';
import type net from 'node:net';

import { until } from './until.js';

/** Asks for Server-Sent Events, and resolves when the stream has begun. */
export async function beginSse(socket: net.Socket, token: string): Promise<void> {
  socket.write(`GET /api/v1/events HTTP/1.1\r\nhost: x\r\nauthorization: Bearer ${token}\r\n\r\n`);
  await answered(socket, 'retry:');
}

/** Opens a WebSocket (RFC 6455) to socket.io, and says nothing. */
export async function openWebSocket(socket: net.Socket): Promise<void> {
  const upgrade = 'connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13';
  const key = `sec-websocket-key: ${randomBytes(16).toString('base64')}`;
  socket.write(`GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nhost: x\r\n${upgrade}\r\n${key}\r\n\r\n`);
  await answered(socket, 'pingInterval');
}

/** The same, says who we are, and resolves when the stream has begun. */
export async function beginSocketIo(socket: net.Socket, token: string): Promise<void> {
  await openWebSocket(socket);
  const packet = Buffer.from(`40${JSON.stringify({ token })}`);
  // a text frame of two bytes' length, masked with zeros
  const head = Buffer.from([0x81, 0xfe, packet.length >> 8, packet.length & 0xff, 0, 0, 0, 0]);
  socket.write(Buffer.concat([head, packet]));
  await answered(socket, 'position');
}

async function answered(socket: net.Socket, text: string): Promise<void> {
  let received = '';
  const listen = (chunk: Buffer) => (received += chunk.toString('latin1'));
  socket.on('data', listen);
  await until(() => received.includes(text), `an answer with ${text}`);
  socket.off('data', listen);
}
