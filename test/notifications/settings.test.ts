import { describe, expect, it } from 'vitest';

import { messageFor, targetsOf } from '../../src/notifications/notification-target.js';
import { readConfig } from '../../src/platform/config/config.js';
import { SECRETS } from '../harness/backend.js';

const read = (env: NodeJS.ProcessEnv) => readConfig({ ...SECRETS, DB_PASSWORD: 'x', ...env });
const TOKEN = 'T0KEN-of-the-hook';
const SECRET = 'a secret of webhooks that is long enough';

describe('the settings of notifications', () => {
  it.each<[string, NodeJS.ProcessEnv, RegExp]>([
    ['webhooks that nobody signs', { WEBHOOK_URLS: `https://a.example/${TOKEN}` }, /^WEBHOOK_SECRET is missing/],
    [
      'another protocol',
      { SLACK_WEBHOOK_URL: `ftp://a.example/${TOKEN}` },
      /^SLACK_WEBHOOK_URL must be URLs that begin/,
    ],
    ['no URL', { WEBHOOK_URLS: `https://a.example,${TOKEN}`, WEBHOOK_SECRET: SECRET }, /^WEBHOOK_URLS must be URLs/],
    ['a file', { WEBHOOK_URLS: `file:///${TOKEN}`, WEBHOOK_SECRET: SECRET }, /^WEBHOOK_URLS must be URLs/],
    ['a short secret', { WEBHOOK_SECRET: 'short' }, /^WEBHOOK_SECRET must have at least 32 characters/],
    ['half a key', { WEBHOOK_SECRET: `whsec_${'é'.repeat(40)}` }, /^WEBHOOK_SECRET begins with whsec_/],
    [
      'an address that is no network',
      { WEBHOOK_ALLOW_INTERNAL: '10.0.0.1' },
      /^WEBHOOK_ALLOW_INTERNAL must be a list of networks/,
    ],
    [
      'eleven webhooks',
      { WEBHOOK_URLS: Array.from({ length: 11 }, (_, i) => `https://a.example/${i}`).join(), WEBHOOK_SECRET: SECRET },
      /^WEBHOOK_URLS /,
    ],
    ['a recovery above the alert', { CAPACITY_ALERT_PERCENT: '70' }, /^CAPACITY_RECOVERY_PERCENT must not be above/],
  ])('are refused with %s, and the URL is not said', (_, env, message) => {
    expect(() => read(env)).toThrow(message);
    expect(() => read(env)).toThrow(expect.objectContaining({ message: expect.not.stringContaining(TOKEN) }));
  });

  it('print as nothing that lets one in', () => {
    const config = read({
      SLACK_WEBHOOK_URL: `https://a.example/${TOKEN}`,
      WEBHOOK_URLS: `https://u:${TOKEN}@b.example`,
      WEBHOOK_SECRET: SECRET,
    });
    expect(JSON.stringify([config, targetsOf(config)])).not.toMatch(new RegExp(`${TOKEN}|${SECRET}`));
  });

  it('name each target once', () => {
    const urls = 'https://a.example/1,https://a.example/2,https://a.example/1';
    expect(targetsOf(read({ WEBHOOK_URLS: urls, WEBHOOK_SECRET: SECRET }))).toHaveLength(2);
    expect(targetsOf(read({}))).toEqual([]);
  });
});

describe('a message of a later release', () => {
  it('is told by its name', () => {
    const id = '0199d3a1-02f4-7b0e-9d57-3c1a5be0f7a2';
    const later = {
      id,
      kind: 'moon.full',
      key: 'x',
      state: 'firing',
      occurrences: 1,
      details: {},
      at: '2026-11-25T09:00:00.000Z',
    } as const;
    expect(messageFor({ type: 'webhook' }, later, [], new Date()).body).toContain('moon.full x: firing');
  });
});
