import { randomBytes } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';

import { describe, expect, it } from 'vitest';

import { newRefreshToken } from '../../src/auth/refresh-token.js';
import { tunnelToken } from '../../src/tunnels/tunnel-key.js';
import { createDatabase } from '../harness/database.js';
import { scanDatabase, scanFiles, scanLog } from '../harness/secret-scan.js';

/**
 * The scan itself runs whenever a suite stops a service or drops its database, and over what bore-servers have kept on disk
 * at the end of the run. Here it is shown that it finds what it looks for.
 */
describe('the scan for secrets finds', () => {
  const jwt = `eyJhbGciOiJIUzI1NiJ9.${randomBytes(30).toString('base64url').replace(/^.{3}/, 'eyJ')}.${randomBytes(32).toString('base64url')}`;
  it.each([
    ['a tunnel token', tunnelToken()],
    ['a refresh token', newRefreshToken()],
    ['a JWT', jwt],
    ['a key of the installation', 'internal-0123456789abcdef0123456789abcdef'],
    ['a password', 'correct horse battery'],
    ['a password hash', '$argon2id$v=19$m=19456'],
  ])('%s in a log', (kind, secret) => {
    expect(() => scanLog(`{"msg":"request","body":"${secret}"}\n`)).toThrow(kind);
    expect(() => scanLog('{"msg":"request"}\n')).not.toThrow();
  });

  it('a token in a table, by its name, and not a password’s hash, which belongs there', async () => {
    const database = await createDatabase();
    await database.query(
      "INSERT INTO users (id, email, password_hash) VALUES (gen_random_uuid(), 'a@b.c', '$argon2id$x')",
    );
    await scanDatabase((sql) => database.query(sql));
    await database.query(`UPDATE users SET name = '${tunnelToken()}'`);
    await expect(database.drop()).rejects.toThrow(/public\.users holds a tunnel token/);
  });

  it('a token that is stored as bytes', async () => {
    const database = await createDatabase();
    await database.query("INSERT INTO users (id, email, password_hash) VALUES (gen_random_uuid(), 'a@b.c', 'x')");
    await database.query(
      `INSERT INTO auth_sessions (id, user_id, expires_at) SELECT gen_random_uuid(), id, now() FROM users`,
    );
    await database.query('INSERT INTO refresh_tokens (hash, session_id) SELECT $1, id FROM auth_sessions', [
      Buffer.from(newRefreshToken()),
    ]);
    await expect(database.drop()).rejects.toThrow(/public\.refresh_tokens holds a refresh token/);
  });

  it('a token in a file', async () => {
    const folder = await mkdtemp(path.join(tmpdir(), 'bore-scan-'));
    await writeFile(path.join(folder, 'state.json'), JSON.stringify({ token: tunnelToken() }));
    await expect(scanFiles(folder)).rejects.toThrow(/state\.json holds a tunnel token/);
    await rm(folder, { recursive: true });
  });
});
