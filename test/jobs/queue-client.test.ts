/** The queue's connection to a Redis Cluster that is reached, and says that it is down. */
import { once } from 'node:events';
import net, { type AddressInfo } from 'node:net';

import { afterAll, beforeAll, expect, it } from 'vitest';

import { readConfig } from '../../src/platform/config/config.js';
import { createQueueClient } from '../../src/platform/redis/redis-client.js';
import { SECRETS } from '../harness/backend.js';
import { until } from '../harness/until.js';

/** `*n`, and n times `$length` and a text (RESP, the form of every command). */
const COMMAND = /^\*(\d+)\r\n((?:\$\d+\r\n[^\r]*\r\n)+)/;

/** A node that has all slots. */
class FakeNode {
  state: 'ok' | 'fail' = 'ok';
  /** How often it has been asked for its state. */
  asked = 0;
  readonly server = net.createServer((socket) => {
    let buffered = '';
    socket.on('error', () => undefined).setEncoding('utf8');
    socket.on('data', (chunk: string) => {
      buffered += chunk;
      for (let match = COMMAND.exec(buffered); match; match = COMMAND.exec(buffered)) {
        const words = (match[2] ?? '').split('\r\n').filter((_, i) => i % 2 === 1);
        const count = Number(match[1]);
        if (words.length < count) return;
        const own = words.slice(0, count);
        buffered = buffered.slice(
          `*${count}\r\n`.length + own.map((word) => `$${word.length}\r\n${word}\r\n`).join('').length,
        );
        socket.write(this.answerTo(own.join(' ').toLowerCase()));
      }
    });
  });

  private answerTo(command: string): string {
    if (command.startsWith('hello')) return '%1\r\n$5\r\nproto\r\n:3\r\n';
    if (command === 'cluster slots')
      return `*1\r\n*3\r\n:0\r\n:16383\r\n*3\r\n${bulk('127.0.0.1')}:${this.port}\r\n${bulk('a'.repeat(40))}`;
    if (command === 'cluster info') {
      this.asked += 1;
      return bulk(`cluster_state:${this.state}\r\n`);
    }
    if (command === 'info') return bulk('redis_version:7.0.0\r\nloading:0\r\n');
    return '+OK\r\n';
  }

  get port(): number {
    const address: AddressInfo | string | null = this.server.address();
    if (address === null || typeof address === 'string') throw new Error('it does not listen');
    return address.port;
  }
}

const bulk = (text: string): string => `$${text.length}\r\n${text}\r\n`;

const node = new FakeNode();

beforeAll(async () => {
  await once(node.server.listen(0, '127.0.0.1'), 'listening');
});

afterAll(() => node.server.close());

it('a connect() ends when the cluster is whole, though it was down when it was reached', async () => {
  const env = { REDIS_ENABLED: 'true', REDIS_MODE: 'cluster', REDIS_NODES: `127.0.0.1:${node.port}` };
  const client = createQueueClient(readConfig({ ...SECRETS, DB_PASSWORD: 'x', ...env }), () => true);
  client.on('error', () => undefined);
  await until(() => client.status === 'ready', 'it is connected');
  client.disconnect();
  await until(() => client.status === 'end', 'it has left');

  node.state = 'fail';
  const before = node.asked;
  let outcome = 'none';
  void client.connect().then(
    () => (outcome = 'connected'),
    () => (outcome = 'failed'),
  );
  await until(() => node.asked > before, 'it has heard that the cluster is down');
  node.state = 'ok';
  await until(() => outcome !== 'none', 'whoever waits hears of it');
  expect(outcome).toBe('connected');
  expect(client.status).toBe('ready');
  client.disconnect();
});
