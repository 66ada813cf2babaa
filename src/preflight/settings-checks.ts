import type { Config } from '../platform/config/config.js';
import { Secret } from '../platform/config/secret.js';
import { type Check, fail, type Group, listed, notChecked, pass } from './finding.js';
import { secretBits } from './secret-strength.js';

/**
 * What keeps keys from being guessed offline, from one token or one row. 32 random hex digits hold 128; less those that look
 * predictable by chance, which are few.
 */
const KEY_BITS_MIN = 90;
/** Of passwords, which can only be tried at their server: 12 random letters and digits hold 71. */
const PASSWORD_BITS_MIN = 60;
/** What docs/load-test.md raises the limits to. */
const LOAD_TEST_LIMIT = 10_000;

interface NamedSecret {
  readonly name: string;
  readonly text: string;
  readonly bitsMin: number;
}

/** What can be seen in the settings alone. */
export function settingsChecks(config: Config): Group {
  const secrets = secretsOf(config);
  return {
    name: 'Settings',
    checks: [
      { id: 'settings', title: 'a backend would start with them', run: () => pass('every variable is understood') },
      { id: 'secrets-strong', title: 'secrets are strong', run: () => strong(secrets) },
      { id: 'secrets-unique', title: 'secrets are different from each other', run: () => unique(secrets) },
      { id: 'production', title: 'NODE_ENV is production', run: () => production(config) },
      { id: 'redis-on', title: 'Redis is on', run: () => redisOn(config) },
      { id: 'cors', title: 'browsers may call from https origins alone', run: () => cors(config) },
      { id: 'trusted-proxy', title: 'the load balancer is trusted', run: () => trustedProxy(config) },
      { id: 'limits', title: 'limits are not those of a load test', run: () => limits(config) },
      { id: 'notifications', title: 'administrators are told of trouble', run: () => notifications(config) },
    ],
  };
}

/** In place of {@link settingsChecks}, when the settings are not understood. */
export function wrongSettings(reason: string): Group {
  const run: Check['run'] = () =>
    fail(reason.replaceAll('\n', '; '), 'put each variable right: the table in README.md says what it means');
  return { name: 'Settings', checks: [{ id: 'settings', title: 'a backend would start with them', run }] };
}

function secretsOf(config: Config): NamedSecret[] {
  const keys: readonly [string, readonly (Secret | undefined)[], number][] = [
    ['JWT_SECRET', [config.JWT_SECRET], KEY_BITS_MIN],
    ['INTERNAL_API_KEY', config.INTERNAL_API_KEY, KEY_BITS_MIN],
    ['TUNNEL_KEY_SECRET', config.TUNNEL_KEY_SECRET, KEY_BITS_MIN],
    ['METRICS_TOKEN', [config.METRICS_TOKEN], KEY_BITS_MIN],
    ['WEBHOOK_SECRET', config.WEBHOOK_SECRET, KEY_BITS_MIN],
    ['DB_PASSWORD', [config.DB_PASSWORD], PASSWORD_BITS_MIN],
    ['REDIS_PASSWORD', [config.REDIS_PASSWORD], PASSWORD_BITS_MIN],
    ['REDIS_SENTINEL_PASSWORD', [config.REDIS_SENTINEL_PASSWORD], PASSWORD_BITS_MIN],
    ['ADMIN_PASSWORD', [config.ADMIN_PASSWORD], PASSWORD_BITS_MIN],
  ];
  return keys.flatMap(([name, values, bitsMin]) =>
    values.flatMap((value) => (value ? [{ name, text: value.reveal(), bitsMin }] : [])),
  );
}

function strong(secrets: readonly NamedSecret[]) {
  const weak = secrets.filter(({ text, bitsMin }) => secretBits(text) < bitsMin);
  const names = [...new Set(weak.map(({ name }) => name))];
  if (names.length === 0)
    return pass(`${secrets.length} secrets, none of which repeats itself, counts up or is a word`);
  return fail(
    `can be guessed: ${listed(names)}`,
    'make each with `openssl rand -hex 32`; in what order programs get it says docs/deployment.md#changing-a-secret',
  );
}

function unique(secrets: readonly NamedSecret[]) {
  const names = new Map<string, string[]>();
  for (const { name, text } of secrets) names.set(text, [...(names.get(text) ?? []), name]);
  const same = [...names.values()].filter(({ length }) => length > 1).map((of) => of.join(' = '));
  if (same.length === 0) return pass(`${secrets.length} secrets`);
  return fail(`the same: ${listed(same)}`, 'give each a value of its own: who learns one then has one');
}

function production({ NODE_ENV }: Config) {
  return NODE_ENV === 'production'
    ? pass('NODE_ENV=production')
    : fail(`NODE_ENV is ${NODE_ENV}`, 'set NODE_ENV=production for every backend');
}

function redisOn({ REDIS_ENABLED }: Config) {
  return REDIS_ENABLED
    ? pass('REDIS_ENABLED=true')
    : fail(
        'REDIS_ENABLED is not true: there may be one backend only, and its restart is an outage',
        'run a Redis and set REDIS_ENABLED=true and REDIS_* for every backend (docs/jobs.md)',
      );
}

function cors({ ALLOWED_ORIGINS }: Config) {
  const wrong = ALLOWED_ORIGINS.filter(
    (origin) => !origin.startsWith('https://') || /^https:\/\/(localhost|127\.|\[::1\])/.test(origin),
  );
  if (wrong.length > 0)
    return fail(
      `not for production: ${listed(wrong)}`,
      'name the https origins of your web pages in ALLOWED_ORIGINS, and no others',
    );
  return pass(ALLOWED_ORIGINS.length === 0 ? 'none: no web page may call the API' : listed(ALLOWED_ORIGINS));
}

function trustedProxy({ TRUST_PROXY, BACKEND_INSTANCES }: Config) {
  if (TRUST_PROXY.length > 0) return pass(`TRUST_PROXY=${listed(TRUST_PROXY)}`);
  if (BACKEND_INSTANCES === 1) return notChecked('TRUST_PROXY is not set: right only without a load balancer');
  return fail(
    `TRUST_PROXY is not set, with ${BACKEND_INSTANCES} backends behind a load balancer: all users count as one address, and share its limits`,
    'set TRUST_PROXY to the addresses of the load balancer, as backends see them',
  );
}

function limits(config: Config) {
  const raised = (['RATE_LIMIT_PER_MINUTE', 'RATE_LIMIT_LOGINS_PER_MINUTE', 'RATE_LIMIT_SIGNUPS_PER_HOUR'] as const)
    .filter((name) => config[name] >= LOAD_TEST_LIMIT)
    .map((name) => `${name}=${config[name]}`);
  if (raised.length === 0) return pass('each is below what a load test needs');
  return fail(
    `hardly limits: ${listed(raised)}`,
    'take them out of the settings after the load test: the defaults hold',
  );
}

function notifications({ SLACK_WEBHOOK_URL, WEBHOOK_URLS }: Config) {
  const targets = WEBHOOK_URLS.length + (SLACK_WEBHOOK_URL ? 1 : 0);
  return targets > 0
    ? notChecked(`${targets} targets; whether they hear is not tried here`, 'POST admin/notifications/test sends one')
    : notChecked('none: neither SLACK_WEBHOOK_URL nor WEBHOOK_URLS', 'docs/notifications.md');
}
