import type { Config } from '../platform/config/config.js';
import { isLoopback } from '../protocol/loopback.js';
import { INTERNAL_KEY_HEADER, INTERNAL_PREFIX } from '../protocol/plane-api.js';
import { checkTls } from './certificate.js';
import { type Check, fail, type Finding, type Group, notChecked, pass, reasonOf } from './finding.js';
import { ask, below, type HttpAnswer } from './http-answer.js';

/** @param api where users reach the API; without, nothing is asked */
export async function apiChecks(config: Config, api: string | undefined): Promise<Group> {
  const first =
    api === undefined ? undefined : await ask(below(api, '/health')).catch((error: unknown) => reasonOf(error));
  const on = (run: (url: string) => Promise<Finding>): Check['run'] => {
    if (api === undefined) return () => notChecked('no --api');
    return typeof first === 'string' ? () => notChecked('the API is not reached') : () => run(api);
  };
  return {
    name: 'API',
    checks: [
      { id: 'api', title: 'the API answers', run: () => reached(api, first) },
      {
        id: 'tls',
        title: 'TLS 1.2 or later, with a certificate that holds',
        // a broken certificate is why the API is not reached
        run: () => (api === undefined ? notChecked('no --api') : tlsOf(api)),
      },
      { id: 'rate-limits', title: 'requests are limited', run: on(rateLimits) },
      { id: 'metrics-hidden', title: '/metrics is not public', run: on(metricsHidden) },
      { id: 'backend-key', title: 'backends know INTERNAL_API_KEY', run: on((url) => backendKey(config, url)) },
    ],
  };
}

function reached(api: string | undefined, first: HttpAnswer | string | undefined): Finding {
  if (api === undefined || first === undefined) return notChecked('no --api', '--api https://api.yourdomain.com');
  const mend = 'see whether backends run (docs/runbook.md#allbackendsdown), and what the load balancer says';
  if (typeof first === 'string') {
    // said by the check of TLS, with what to do
    if (/certificate|self.signed|TLS|SSL/i.test(first)) return notChecked(`${api}: ${first}`);
    return fail(`${api}: ${first}`, mend);
  }
  return first.status === 200 ? pass(`${api}/health: 200`) : fail(`${api}/health: ${first.status}`, mend);
}

async function tlsOf(api: string): Promise<Finding> {
  const url = new URL(api);
  if (url.protocol === 'https:') return checkTls(url);
  return fail(
    `${api} is not https: passwords and tokens cross the network in clear`,
    'give the load balancer a certificate (docs/nginx.md), and --api its https address',
  );
}

async function rateLimits(api: string): Promise<Finding> {
  const { status, headers } = await ask(below(api, '/api/v1/system/status'));
  const policy = headers.get('ratelimit-policy');
  if (policy !== null) return pass(`RateLimit-Policy: ${policy}`);
  return fail(
    `an answer (${status}) has no RateLimit-Policy`,
    'is this the API of this release, and does the load balancer pass its headers on?',
  );
}

async function metricsHidden(api: string): Promise<Finding> {
  const { status } = await ask(below(api, '/metrics'));
  if (status !== 200) return pass(`${api}/metrics: ${status}`);
  return fail(
    `${api}/metrics shows figures to whoever asks`,
    'refuse /metrics at the load balancer (deploy/nginx/api.conf), and set METRICS_TOKEN',
  );
}

/** Asks for nothing: a body that is refused, after the key was looked at. The key does not leave this machine in clear. */
async function backendKey({ INTERNAL_API_KEY: [key] }: Config, api: string): Promise<Finding> {
  if (new URL(api).protocol === 'http:' && !isLoopback(api))
    return notChecked(`the key would go to ${api} in clear`, 'give --api its https address');
  const { status } = await ask(below(api, `${INTERNAL_PREFIX}/tunnels/locate`), {
    method: 'POST',
    headers: { [INTERNAL_KEY_HEADER]: key?.reveal() ?? '', 'content-type': 'application/json' },
    body: '{}',
  });
  if (status === 400) return pass('accepted');
  if (status === 401)
    return fail(
      'the running backends refuse the key of these settings',
      'give all backends the same INTERNAL_API_KEY, and restart them one after another',
    );
  return notChecked(`${INTERNAL_PREFIX}/ answers ${status} from here`, 'run it from where bore-servers are');
}
