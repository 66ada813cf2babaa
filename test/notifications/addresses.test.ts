/** Where notifications must not be sent (SSRF), by real sockets. */
import { randomBytes } from 'node:crypto';
import type { LookupAddress } from 'node:dns';
import { once } from 'node:events';
import net from 'node:net';

import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { z } from 'zod';

import { Secret } from '../../src/platform/config/secret.js';
import { post } from '../../src/notifications/outgoing-post.js';
import { isAllowedAddress } from '../../src/notifications/public-address.js';
import { ControlPlane } from '../api/control-plane.js';
import { until } from '../harness/until.js';
import { Receiver } from './receiver.js';

let receiver: Receiver;
beforeEach(async () => {
  receiver = await Receiver.start();
});
afterEach(() => receiver.stop());

const MESSAGE = { headers: { 'content-type': 'application/json' }, body: '{}' };
const REFUSED = { sent: false, failure: 'the address is not allowed' };
const resolvesTo =
  (...addresses: string[]) =>
  (_: string, __: unknown, callback: (error: null, addresses: LookupAddress[]) => void) =>
    callback(
      null,
      addresses.map((address) => ({ address, family: address.includes(':') ? 6 : 4 })),
    );

describe('addresses', () => {
  it.each([
    '127.0.0.1',
    '127.255.255.254',
    '0.0.0.0',
    '0.1.2.3',
    '10.0.0.1',
    '172.16.0.1',
    '172.31.255.255',
    '192.168.1.1',
    '169.254.169.254',
    '100.64.0.1',
    '100.127.255.255',
    '192.0.0.1',
    '192.0.2.1',
    '198.18.0.1',
    '198.51.100.1',
    '203.0.113.1',
    '224.0.0.1',
    '239.255.255.255',
    '240.0.0.1',
    '255.255.255.255',
    '::',
    '::1',
    '::127.0.0.1',
    '::ffff:127.0.0.1',
    '::ffff:7f00:1',
    '::ffff:10.0.0.1',
    '::ffff:169.254.169.254',
    'fe80::1',
    'febf::1',
    'fec0::1',
    'fc00::1',
    'fd00:ec2::254',
    'ff02::1',
    '64:ff9b::7f00:1',
    '64:ff9b:1::1',
    '2002:7f00:1::',
    '2001::1',
    '2001:db8::1',
    '100::1',
    '4000::1',
    'localhost',
    '',
    '127.1 ',
  ])('%s is refused, unless its network is allowed', (address) => {
    expect(isAllowedAddress(address, [])).toBe(false);
    expect(isAllowedAddress(address, ['192.0.2.128/25'])).toBe(false);
  });

  it.each(['1.1.1.1', '8.8.8.8', '172.15.0.1', '172.32.0.1', '100.128.0.1', '2606:4700::1111', '::ffff:8.8.8.8'])(
    '%s is public',
    (address) => expect(isAllowedAddress(address, [])).toBe(true),
  );

  it('of a network that is allowed are allowed, in either dress, and no others', () => {
    const allowed = ['10.1.0.0/16', 'fd00:1::/32'];
    expect(['10.1.2.3', '::ffff:10.1.2.3', 'fd00:1::5'].map((each) => isAllowedAddress(each, allowed))).toEqual([
      true,
      true,
      true,
    ]);
    expect(['10.2.0.1', 'fd00:2::5', '127.0.0.1'].map((each) => isAllowedAddress(each, allowed))).toEqual([
      false,
      false,
      false,
    ]);
  });
});

describe('a POST', () => {
  it.each([
    'http://127.0.0.1:PORT/',
    'http://2130706433:PORT/',
    'http://0x7f.1:PORT/',
    'http://0177.0.0.1:PORT/',
    'http://127.1:PORT/',
    'http://[::ffff:127.0.0.1]:PORT/',
    'http://[::1]:PORT/',
    'http://0.0.0.0:PORT/',
    'http://[::]:PORT/',
    'http://localhost:PORT/',
    'http://LOCALHOST.:PORT/',
  ])('to %s does not arrive', async (url) => {
    const posted = await post(new Secret(url.replace('PORT', String(receiver.port))), MESSAGE, []);
    expect(posted.sent).toBe(false);
    if (url !== 'http://LOCALHOST.:PORT/') expect(posted).toEqual(REFUSED);
    expect(receiver.arrived).toEqual([]);
  });

  it('to a name arrives where the name may lead, and not where one of its addresses may not', async () => {
    const url = new Secret(`http://hook.example:${receiver.port}/`);
    expect(await post(url, MESSAGE, ['127.0.0.0/8'], resolvesTo('127.0.0.1'))).toEqual({ sent: true });
    expect(receiver.arrived).toHaveLength(1);
    expect(await post(url, MESSAGE, [], resolvesTo('127.0.0.1'))).toEqual(REFUSED);
    expect(await post(url, MESSAGE, ['127.0.0.0/8'], resolvesTo('127.0.0.1', '169.254.169.254'))).toEqual(REFUSED);
    expect(receiver.arrived).toHaveLength(1);
  });

  it('connects to the very address that was checked: a name that resolves otherwise a moment later gains nothing', async () => {
    let asked = 0;
    const url = new Secret(`http://rebinds.example:${receiver.port}/`);
    // 192.0.2.1 leads nowhere and is allowed for this; then loopback, where the receiver is
    const rebinds = (name: string, options: unknown, callback: (error: null, addresses: LookupAddress[]) => void) =>
      resolvesTo(asked++ === 0 ? '127.0.0.2' : '127.0.0.1')(name, options, callback);
    const first = await post(url, MESSAGE, ['127.0.0.2/32'], rebinds);
    expect(first).toMatchObject({ sent: false, failure: 'ECONNREFUSED' });
    expect(asked).toBe(1);
    expect(await post(url, MESSAGE, ['127.0.0.2/32'], rebinds)).toEqual(REFUSED);
    expect(receiver.arrived).toEqual([]);
  });

  it('ends, whatever is answered: another protocol, or none', async () => {
    for (const [said, failure] of [
      ['HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: other\r\n\r\n', 'answered 101'],
      ['HTTP/1.1 101 Switching Protocols\r\n\r\n', 'answered 101'],
      ['HTTP/1.1 100 Continue\r\n\r\n', 'timed out'],
      ['220 mail.example ESMTP\r\n', 'HPE_INVALID_CONSTANT'],
    ] as const) {
      const other = net.createServer((socket) =>
        socket.on('error', () => undefined).once('data', () => socket.write(said)),
      );
      await once(other.listen(0, '127.0.0.1'), 'listening');
      const { port } = z.object({ port: z.int() }).parse(other.address());
      const posted = await post(new Secret(`http://127.0.0.1:${port}/`), MESSAGE, ['127.0.0.0/8']);
      other.close();
      expect(posted, said).toEqual({ sent: false, failure });
    }
  });

  it('does not follow a redirect, and says nothing of where it leads', async () => {
    receiver.usual = 'http://169.254.169.254/latest';
    const url = new Secret(receiver.url('/'));
    expect(await post(url, MESSAGE, ['127.0.0.0/8'])).toEqual({ sent: false, failure: 'answered 307' });
    expect(receiver.arrived).toHaveLength(1);
  });
});

describe('a backend whose webhooks lead inside', () => {
  it('sends nothing, says so, and keeps the URLs to itself', async () => {
    const token = randomBytes(12).toString('hex');
    const plane = await ControlPlane.start({
      env: {
        HOUSEKEEPING_INTERVAL_MS: '250',
        SLACK_WEBHOOK_URL: receiver.url(`/${token}`),
        WEBHOOK_URLS: `http://localhost:${receiver.port}/${token}`,
        WEBHOOK_SECRET: `secret-${token}-0123456789`,
      },
    });
    try {
      const admin = await plane.admin();
      await admin.post('/api/v1/admin/notifications/test', undefined);
      const listed = await until(
        async () => {
          const { body, text } = await admin.get('/api/v1/admin/notifications');
          const deliveries: { failure: string | null }[] = body.items[0].deliveries;
          return deliveries.length === 2 && deliveries.every(({ failure }) => failure !== null)
            ? { deliveries, text }
            : null;
        },
        'both are refused',
        30_000,
      );
      expect(listed.deliveries.map(({ failure }) => failure)).toEqual([REFUSED.failure, REFUSED.failure]);
      expect(receiver.arrived).toEqual([]);
      const tables = ['notifications', 'notification_deliveries', 'notification_conditions', 'audit_log', 'bullmq.job'];
      const rows = await Promise.all(
        tables.map(async (table) =>
          JSON.stringify(await plane.database.query(`SELECT t::text FROM ${table} t`).catch(() => [])),
        ),
      );
      expect(rows.join('').length).toBeGreaterThan(100);
      for (const text of [listed.text, plane.backends[0]?.output() ?? '', ...rows]) {
        expect(text).not.toContain(token);
        // the number alone may be part of an id or a time
        expect(text).not.toContain(`:${receiver.port}`);
      }
    } finally {
      await plane.stop();
    }
  });
});
