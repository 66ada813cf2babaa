/** A real Prometheus watches a running cluster with what we ship: every expression has an answer, and an alert reaches Slack. */
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';

import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';

import { Person } from '../cli/borectl.js';
import { type LocalService, startService, visit } from '../cli/local-service.js';
import { type Api } from '../harness/api.js';
import { EventStream } from '../harness/event-stream.js';
import { clusterUnavailable, OwnCluster } from '../harness/own-cluster.js';
import { until } from '../harness/until.js';
import { PANELS } from './dashboard-file.js';
import { Exporters, EXPORTERS } from './exporters.js';
import { ALERTMANAGER, type OwnAlertmanager, startAlertmanager } from './own-alertmanager.js';
import { OwnPrometheus } from './own-prometheus.js';
import { programsMissing } from './programs.js';
import { selectorsOf } from './promql.js';
import { ALERTS, RECORDINGS } from './rule-files.js';
import { SlackReceiver } from './slack-receiver.js';

/** A cluster and eight programs more, on two cores that other suites use too. */
const START_MS = 240_000;
/** Rates need two scrapes of what has happened, rules an evaluation more; each is a second, on a machine that is busy. */
const SEEN_MS = 60_000;
const PASSWORD = 'correct horse battery';
/** More than fit, so that some are refused. */
const CAPACITY = 6;

const programs = programsMissing({ prometheus: 'prometheus', ...ALERTMANAGER, ...EXPORTERS });
const reason = (await clusterUnavailable()) ?? programs;

/** Metrics that a healthy cluster does not show, with the reason. */
const ABSENT: Readonly<Record<string, string>> = {
  bore_notifications_total: 'nobody is to be notified here',
};

describe('a Prometheus with the files of monitoring/', () => {
  const token = randomBytes(32).toString('hex');
  let own: OwnCluster;
  let exporters: Exporters;
  let slack: SlackReceiver;
  let alertmanager: OwnAlertmanager;
  let prometheus: OwnPrometheus;
  let person: Person;
  let service: LocalService;
  let api: Api;
  let stream: EventStream;
  /** Why it broke off, if it did. */
  let load: Promise<unknown>;
  let isOver = false;

  beforeEach(({ skip }) => {
    if (reason !== undefined) skip(reason);
  });

  beforeAll(async () => {
    if (reason !== undefined) return;
    own = await OwnCluster.start({
      address: '127.48.0.1',
      env: {
        TOTAL_SYSTEM_CAPACITY: String(CAPACITY),
        RESERVED_CAPACITY_PERCENT: '0',
        HOUSEKEEPING_INTERVAL_MS: '500',
      },
      // a cluster on one machine asks for none by itself, and looks at its bore-servers' figures without
      envOf: (name) => (name.startsWith('backend-') ? { METRICS_TOKEN: token } : {}),
    });
    const { settings, secrets, cluster } = own;
    exporters = await Exporters.start({
      database: cluster.database,
      redis: { port: settings.redisPort, password: secrets.REDIS_PASSWORD },
      nginx: `${cluster.url}/nginx_status`,
    });
    slack = await SlackReceiver.start();
    alertmanager = await startAlertmanager(slack.url);
    prometheus = await OwnPrometheus.start({
      token,
      backends: settings.machines.map(({ address }) => `${address}:${settings.apiPort}`),
      targets: { ...exporters.addresses, certificates: exporters.site },
      blackbox: exporters.addresses.certificates,
      alertmanager: alertmanager.address,
    });
    await startLoad();
  }, START_MS);

  afterAll(async () => {
    isOver = true;
    const broken = await load;
    stream?.close();
    await person?.leave();
    service?.close();
    await prometheus?.stop();
    await alertmanager?.process.stop();
    slack?.close();
    await exporters?.stop();
    await own?.stop();
    expect(broken).toBeUndefined();
  }, START_MS);

  async function startLoad(): Promise<void> {
    person = await Person.at(own.cluster.url);
    const email = 'watched@example.com';
    expect((await person.run(['signup', email])).code).toBe(0);
    const { body } = await own.api.post('/api/v1/auth/login', { email, password: PASSWORD });
    api = own.api.withToken(body.accessToken);
    stream = await EventStream.open(api);
    service = await startService((socket) => socket.pipe(socket));
    // one at each server; through the one name, a client meets its owner once in three times
    const tunnels = await Promise.all([1, 2, 3].map(() => person.open(service.port)));
    load = (async () => {
      while (!isOver) {
        for (const tunnel of tunnels) {
          const socket = await visit(tunnel);
          socket.end('hello');
          await once(socket.resume(), 'end');
          socket.destroy();
        }
        await Promise.all(['/api/v1/tunnels', '/api/v1/capacity', '/api/v1/nothing'].map((path) => api.get(path)));
        await own.api.post('/api/v1/auth/login', { email, password: 'wrong horse battery' });
        // one fits and is ended at its bore-server, which a breaker guards; of those that come all at once, some do not
        const opened = await Promise.all(Array.from({ length: CAPACITY }, () => api.post('/api/v1/tunnels', {})));
        for (const { status, body: tunnel } of opened)
          if (status === 201) await api.delete(`/api/v1/tunnels/${tunnel.id}`);
      }
    })().catch((error: unknown) => error);
  }

  /** Waits until each expression has a series. Fails with all that have none. */
  async function haveSeries(expressions: readonly { title: string; expr: string }[]): Promise<void> {
    let empty: string[] = [];
    await until(
      async () => {
        const counts = await Promise.all(expressions.map(({ expr }) => prometheus.count(expr)));
        empty = expressions.filter((_, i) => counts[i] === 0).map(({ title, expr }) => `${title}: ${expr}`);
        return empty.length === 0;
      },
      'every expression has series',
      SEEN_MS,
    ).catch((cause: unknown) => {
      throw new Error(`empty:\n${empty.join('\n')}`, { cause });
    });
  }

  const isAbsent = (expr: string) => selectorsOf(expr).some(({ metric }) => metric in ABSENT);

  it(
    'finds every target, bore-servers by themselves, with the token that they ask for',
    async () => {
      for (const path of ['/metrics', '/metrics/bore-servers'])
        expect((await own.api.at(own.backendUrl(0)).get(path)).status).toBe(401);
      const up = async () => {
        const series = await prometheus.series('up == 1');
        return series.map(({ job }) => job ?? '').sort();
      };
      const jobs = [...Array.from({ length: 3 }, () => ['bore-backend', 'bore-server']).flat(), 'certificates'];
      const expected = [...jobs, 'machines', 'nginx', 'postgresql', 'prometheus', 'redis'].sort();
      const found = await until(
        async () => {
          const jobsUp = await up();
          return jobsUp.length === expected.length && jobsUp;
        },
        'all are up',
        SEEN_MS,
      );
      expect(found).toEqual(expected);
      const servers = await prometheus.series('up{job="bore-server"}');
      expect(servers.map(({ server }) => server ?? '').sort()).toEqual(['s1', 's2', 's3']);
      for (const { location } of servers) expect(location).toBeTruthy();
    },
    SEEN_MS * 2,
  );

  it(
    'has something to show on every panel',
    async () => {
      const expressions = PANELS.flatMap(({ title, targets }) =>
        targets.map(({ expr }) => ({
          title,
          expr: expr.replaceAll(/"\$(job|instance)"/g, '".+"').replaceAll('$__rate_interval', '1m'),
        })),
      );
      await haveSeries(expressions.filter(({ expr }) => !isAbsent(expr)));
      // those, too, are none that Prometheus refuses
      for (const { expr } of expressions.filter(({ expr: one }) => isAbsent(one))) await prometheus.count(expr);
    },
    SEEN_MS * 2,
  );

  it(
    'evaluates every rule, and has every series that an alert looks at',
    async () => {
      await haveSeries(RECORDINGS.map(({ record }) => ({ title: 'rule', expr: record })));
      for (const { name, health, lastError } of await prometheus.rules())
        expect([name, health, lastError ?? '']).toEqual([name, 'ok', '']);
      expect(await prometheus.rules()).toHaveLength(ALERTS.length + RECORDINGS.length);
      for (const { expr } of ALERTS) await prometheus.count(expr);
      const asked = ALERTS.flatMap(({ alert, expr }) =>
        selectorsOf(expr).map(({ metric, matchers }) => ({ title: alert, expr: `${metric}{${matchers.join(',')}}` })),
      );
      await haveSeries(asked.filter(({ expr }) => !isAbsent(expr)));
    },
    SEEN_MS * 3,
  );

  it(
    'tells Slack of tunnels that were refused',
    async () => {
      const told = () => slack.messages.find(({ attachments: [{ title }] }) => title === 'CRITICAL: TunnelsRefused');
      const message = await until(told, 'Slack hears of it', SEEN_MS);
      expect(message.attachments[0].text).toMatch(/• \d+ tunnels were refused in five minutes: no capacity/);
    },
    SEEN_MS * 2,
  );
});
