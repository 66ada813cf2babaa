import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';

import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { ownPort } from '../harness/own-ports.js';
import { until } from '../harness/until.js';
import type { Person } from './borectl.js';
import { endOf, hashAll, type LocalService, readAll, startService, visit } from './local-service.js';
import { Platform } from './platform.js';

const MEGABYTES = 20;

let platform: Platform;
let person: Person;
let upper: LocalService;

beforeAll(async () => {
  platform = await Platform.start('127.0.7.2');
  person = await platform.newUser();
  // answers when its visitor has finished: by half-close, or never
  upper = await startService(
    (socket) =>
      void readAll(socket).then(
        (text) => socket.end(text.toUpperCase()),
        () => undefined,
      ),
  );
});

afterAll(async () => {
  upper?.close();
  await platform?.stop();
});

describe('a tunnel', () => {
  it('is opened, seen, used, and gone after Ctrl-C', async () => {
    const client = await person.open(upper.port, '--name', 'web', '--ttl', '600', '--max-connections', '7');
    expect(client.host).toBe('127.0.7.2');
    const visitor = await visit(client);
    visitor.end('hello through the tunnel');
    expect(await readAll(visitor)).toBe('HELLO THROUGH THE TUNNEL');

    const { stdout } = await person.run(['ls']);
    const [head, row, ...rest] = stdout.split('\n');
    expect(head).toMatch(/^NAME +PUBLIC ADDRESS +STATE +LOCAL PORT +EXPIRES +ID$/);
    expect(row?.split(/ {2,}/)).toEqual([
      'web',
      `127.0.7.2:${client.port}`,
      'active',
      String(upper.port),
      expect.stringMatching(/^\d{4}-.*Z$/),
      expect.stringMatching(/^[0-9a-f-]{36}$/),
    ]);
    expect(row?.indexOf('active')).toBe(head?.indexOf('STATE'));
    expect(rest).toEqual(['']);
    expect(await (await platform.apiOf(person)).get(`/api/v1/tunnels/${row?.split(/ +/).at(-1)}`)).toMatchObject({
      body: { maxConnections: 7 },
    });

    client.signal('SIGINT');
    expect(await client.exitCode()).toBe(0);
    expect(client.output()).toMatch(/Closed the tunnel\.\n$/);
    expect(JSON.parse((await person.run(['ls', '--json'])).stdout)).toEqual([]);
    await expect(visit(client)).rejects.toThrow('ECONNREFUSED');
  });

  it('is closed by a Ctrl-C that npm passes on a second time, and by a terminal that goes', async () => {
    const client = await person.open(upper.port);
    client.signal('SIGINT');
    client.signal('SIGINT');
    expect(await client.exitCode()).toBe(0);
    const other = await person.open(upper.port);
    other.signal('SIGHUP');
    expect(await other.exitCode()).toBe(0);
    expect((await person.run(['ls'])).stdout).toBe('No open tunnels.\n');
  });

  it('stays open with --keep, and is removed by name or by id', async () => {
    const [first, second] = [
      await person.open(upper.port, '--keep', '--name', 'kept', '--port', '14077'),
      await person.open(upper.port, '--keep'),
    ];
    expect(first.port).toBe(14_077);
    for (const client of [first, second]) {
      client.signal('SIGTERM');
      expect(await client.exitCode()).toBe(0);
    }
    expect(first.output()).toMatch(/Carry it again with: bore local \d+ --to 127\.0\.7\.2 --port 14077 --secret tk_/);
    const tunnels = JSON.parse((await person.run(['ls', '--json'])).stdout);
    expect(tunnels).toMatchObject([{ name: null }, { name: 'kept', port: 14_077 }]);
    expect(await person.run(['rm', 'kept'])).toEqual({ code: 0, stdout: 'Closed kept.\n', stderr: '' });
    expect((await person.run(['rm', tunnels[0].id])).code).toBe(0);
    expect(await person.run(['rm', 'kept'])).toEqual({
      code: 1,
      stdout: '',
      stderr: 'borectl: There is no open tunnel kept.\n',
    });
    expect((await person.run(['ls'])).stdout).toBe('No open tunnels.\n');
  });

  it('tells scripts its address in one line of JSON', async () => {
    const client = person.start('open', String(upper.port), '--json');
    const [line] = (await client.waitFor('Ctrl-C')).split('\n');
    expect(JSON.parse(line ?? '')).toMatchObject({
      host: '127.0.7.2',
      publicAddress: expect.stringMatching(/^127\.0\.7\.2:14\d{3}$/),
      controlPort: platform.server.controlPort,
      localPort: upper.port,
      command: expect.stringMatching(/^bore local/),
    });
    await client.stop();
  });

  it('is refused in one sentence that holds the code', async () => {
    expect(await person.run(['open', '80', '--port', '9999'])).toMatchObject({
      code: 1,
      stdout: '',
      stderr: 'borectl: No online server offers this port [PORT_OUT_OF_RANGE].\n',
    });
    expect((await person.run(['open', '80', '--name', 'Not A Name'])).stderr).toMatch(/name: .*\[VALIDATION_FAILED\]/);
  });

  it('lists more than one page', async () => {
    const many = await platform.newUser();
    const api = await platform.apiOf(many);
    for (let i = 0; i < 98; i++) await api.post('/api/v1/tunnels', { name: `t${i}` });
    // the last ports of the range: whoever else is here has the first
    expect((await many.run(['ls'])).stdout.split('\n')).toHaveLength(98 + 2);
    await platform.database.query(
      `INSERT INTO tunnels SELECT (t2).* FROM (SELECT jsonb_populate_record(t, jsonb_build_object(
         'id', gen_random_uuid(), 'name', t.name || 'x', 'port', t.port + 10000)) AS t2 FROM tunnels t WHERE name LIKE 't%') x`,
    );
    const { items } = (await api.get('/api/v1/tunnels?limit=100')).body;
    expect(items).toHaveLength(100);
    expect(JSON.parse((await many.run(['ls', '--json'])).stdout)).toHaveLength(196);
    expect((await many.run(['rm', 't0'])).code).toBe(0);
    await platform.database.query(`DELETE FROM tunnels WHERE port > 20000`);
  });
});

describe('bytes', () => {
  it(`arrive whole and in order, ${MEGABYTES} MB both ways at once, with half-close`, async () => {
    const seed = randomBytes(1 << 20);
    const expected = createHash('sha256');
    for (let i = 0; i < MEGABYTES; i++) expected.update(seed);
    const hash = expected.digest('hex');
    const received: Promise<{ hash: string; bytes: number }>[] = [];
    const service = await startService((socket) => {
      received.push(hashAll(socket));
      for (let i = 0; i < MEGABYTES; i++) socket.write(seed);
      socket.end();
    });
    const client = await person.open(service.port);
    const visitors = await Promise.all(Array.from({ length: 3 }, () => visit(client)));
    const answers = visitors.map(async (visitor) => {
      for (let i = 0; i < MEGABYTES; i++) visitor.write(seed);
      visitor.end();
      return hashAll(visitor);
    });
    for (const answer of [...(await Promise.all(answers)), ...(await Promise.all(received))]) {
      expect(answer).toEqual({ hash, bytes: MEGABYTES << 20 });
    }
    await client.stop();
    service.close();
  });

  it('are not taken faster than they are read', async () => {
    const service = await startService((socket) => void socket.pause());
    const client = await person.open(service.port);
    const visitor = await visit(client);
    const chunk = Buffer.alloc(1 << 20);
    const taken = (async () => {
      // what every buffer on the way may hold, many times over
      for (let i = 0; i < 64; i++) {
        if (!visitor.write(chunk)) await once(visitor, 'drain');
      }
      return 'everything';
    })();
    taken.catch(() => undefined); // the visitor leaves at the end
    const stalled = until(async () => {
      const { bytesWritten } = visitor;
      await new Promise((resolve) => setTimeout(resolve, 500));
      return bytesWritten > 0 && visitor.bytesWritten === bytesWritten && 'stalled';
    }, 'the visitor’s writes stall');
    expect(await Promise.race([taken, stalled])).toBe('stalled');
    visitor.destroy();
    await client.stop();
    service.close();
  });

  it('that end in a reset end in a reset, either way', async () => {
    const ends: Promise<string>[] = [];
    const service = await startService((socket) => {
      ends.push(endOf(socket));
      socket.on('data', (data) => {
        if (String(data).includes('reset me')) socket.resetAndDestroy();
      });
      socket.write('.');
    });
    const client = await person.open(service.port);
    const resetBy = await visit(client);
    resetBy.write('reset me');
    expect(await endOf(resetBy)).toBe('ECONNRESET');
    const resets = await visit(client);
    await once(resets, 'data');
    resets.resetAndDestroy();
    expect(await until(async () => (await Promise.all(ends)).at(1), 'the service hears of the reset')).toBe(
      'ECONNRESET',
    );
    await client.stop();
    service.close();
  });
});

describe('visitors', () => {
  it('are turned away at once while nothing listens locally, and let in when something does', async () => {
    const nothing = await ownPort();
    const client = await person.open(nothing, '--local-host', '127.0.0.1');
    const started = performance.now();
    for (const end of await Promise.all(Array.from({ length: 8 }, async () => endOf(await visit(client))))) {
      expect(end).toBe('closed');
    }
    expect(performance.now() - started).toBeLessThan(3_000);
    await client.waitFor(`127.0.0.1:${nothing}: connection refused`);
    expect(client.output().match(/turned away/g)).toHaveLength(1);

    const late = await startService((socket) => void socket.end('late'), nothing);
    const visitor = await visit(client);
    visitor.end();
    expect(await readAll(visitor)).toBe('late');
    late.close();
    await client.stop();
  });

  it('come many at once', async () => {
    const service = await startService(
      (socket) =>
        void readAll(socket).then(
          (text) => socket.end(`to ${text}`),
          () => undefined,
        ),
    );
    const client = await person.open(service.port);
    const answers = await Promise.all(
      Array.from({ length: 200 }, async (_, i) => {
        const visitor = await visit(client);
        visitor.end(String(i));
        return readAll(visitor);
      }),
    );
    expect(answers).toEqual(Array.from({ length: 200 }, (_, i) => `to ${i}`));
    await client.stop();
    service.close();
  });
});
