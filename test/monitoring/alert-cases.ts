/** When each alert fires and when it is silent: series in promtool's notation, a sample a minute. */

/** Series that are all there at once, each with its values. */
export type Series = Readonly<Record<string, string>>;

export interface AlertCase {
  readonly alert: string;
  /** It fires at minute `firesAt` of these, and not any more at `silentAt`. */
  readonly bad: Series;
  readonly firesAt: number;
  readonly silentAt: number;
  /** Those that the expression leaves, without the rule's own. */
  readonly labels: Readonly<Record<string, string>>;
  readonly summary: string;
  /** It is silent at both times of each of these, by why: just below its bound, for one. */
  readonly silent: Readonly<Record<string, Series>>;
}

/** Bad for half an hour, then good for as long as the longest window, an hour, and a half. */
const BAD = 30;
const GOOD = 100;
const TIMES = { firesAt: BAD - 1, silentAt: BAD + GOOD - 1 };

const gauge = (bad: number, good: number) => `${bad}x${BAD - 1} ${good}x${GOOD}`;
const steady = (value: number) => `${value}x${BAD + GOOD}`;
/** Grows by so much a minute, and stays then. */
const counter = (perMinute: number) => `0+${perMinute}x${BAD - 1} ${perMinute * (BAD - 1)}x${GOOD}`;
const growing = (perMinute: number) => `0+${perMinute}x${BAD + GOOD}`;

const BACKEND = { job: 'bore-backend', instance: 'b1' };
const SERVER = { job: 'bore-server', instance: 's1' };

const series = (name: string, labels: Readonly<Record<string, string>>) =>
  `${name}{${Object.entries(labels)
    .map(([key, value]) => `${key}="${value}"`)
    .join(',')}}`;

interface Threshold {
  readonly alert: string;
  readonly metric: string;
  readonly on: Readonly<Record<string, string>>;
  /** Default: those of the series. */
  readonly labels?: Readonly<Record<string, string>>;
  readonly bad: number;
  readonly below: number;
  /** Where it is another. */
  readonly good?: number;
  /** What it is a share of. */
  readonly of?: Readonly<Record<string, number>>;
  readonly summary: string;
}

/** A figure that is too large, or its share of another. */
function threshold({
  alert,
  metric,
  on,
  labels = on,
  bad,
  below,
  good = below,
  of = {},
  summary,
}: Threshold): AlertCase {
  const name = series(metric, on);
  const whole = Object.fromEntries(Object.entries(of).map(([key, value]) => [series(key, on), steady(value)]));
  return {
    alert,
    bad: { [name]: gauge(bad, good), ...whole },
    ...TIMES,
    labels,
    summary,
    silent: {
      'just below': { [name]: steady(below), ...whole },
      // a limit of nothing is no limit
      ...(Object.keys(of).length > 0 && {
        'without a limit': {
          [name]: steady(bad),
          ...Object.fromEntries(Object.keys(whole).map((key) => [key, steady(0)])),
        },
      }),
    },
  };
}

type Growth = Omit<Threshold, 'good' | 'of'>;

/** A counter that grows too fast; `bad` and `below` are a minute's growth. */
function growth({ alert, metric, on, labels = on, bad, below, summary }: Growth): AlertCase {
  const name = series(metric, on);
  return {
    alert,
    bad: { [name]: counter(bad) },
    ...TIMES,
    labels,
    summary,
    silent: { 'just below': { [name]: growing(below) } },
  };
}

const requests = (status: number) =>
  series('http_requests_total', { ...BACKEND, method: 'GET', route: '/api/v1/tunnels', status: String(status) });
const health = series('http_requests_total', { ...BACKEND, method: 'GET', route: '/health/ready', status: '503' });

const JOB = { job: BACKEND.job };
const NGINX = { job: 'nginx', instance: 'n1' };
const POSTGRES = { job: 'postgresql', instance: 'p1' };
const REDIS = { job: 'redis', instance: 'r1' };
const QUEUE = { ...BACKEND, queue: 'housekeeping' };
const S7 = { ...BACKEND, server: 's7' };
const connections = (database: string) => series('pg_stat_database_numbackends', { ...POSTGRES, datname: database });
const ALLOWED = series('pg_settings_max_connections', POSTGRES);
const completed = (instance: string) =>
  series('bore_jobs_total', { ...JOB, instance, task: 'close-due-tunnels', outcome: 'completed' });
const SITE = { job: 'certificates', instance: 'https://api' };
const expiry = series('probe_ssl_earliest_cert_expiry', SITE);
const DAY = 86_400;
const certificate = (alert: string, days: number): AlertCase => ({
  alert,
  bad: { [expiry]: `${days * DAY + 20 * 60}x89 ${90 * DAY}x60` },
  firesAt: 89,
  silentAt: 140,
  labels: SITE,
  summary: `The certificate of https://api expires in ${days - 1}d 22h 51m 0s`,
  silent: { 'just above': { [expiry]: `${days * DAY + 145 * 60}x150` } },
});

export const ALERT_CASES: readonly AlertCase[] = [
  {
    alert: 'HighErrorRate',
    bad: { [requests(200)]: growing(94), [requests(503)]: counter(6) },
    ...TIMES,
    labels: JOB,
    summary: '6% of API requests fail',
    silent: {
      'just below': { [requests(200)]: growing(95), [requests(503)]: growing(5) },
      'one failure a minute': { [requests(503)]: growing(1) },
      'callers’ own mistakes': { [requests(200)]: growing(10), [requests(404)]: growing(90) },
      'health checks of a backend that drains': { [requests(200)]: growing(10), [health]: growing(90) },
    },
  },
  threshold({
    alert: 'HighCapacityUtilization',
    metric: 'bore_capacity_utilization_percent',
    on: BACKEND,
    labels: JOB,
    bad: 86,
    below: 85,
    summary: 'Capacity is used to 86 %',
  }),
  growth({
    alert: 'TunnelsRefused',
    metric: 'bore_tunnel_admissions_total',
    on: { ...BACKEND, outcome: 'no_capacity' },
    labels: JOB,
    bad: 2,
    below: 1,
    summary: '10 tunnels were refused in five minutes: no capacity',
  }),
  {
    ...threshold({
      alert: 'BoreServerNearlyFull',
      metric: 'bore_server_tunnels',
      on: S7,
      labels: { ...JOB, server: 's7' },
      bad: 96,
      below: 95,
      of: { bore_server_capacity: 100 },
      summary: 's7 has 96% of its tunnels',
    }),
  },
  threshold({
    alert: 'BoreServerSessionsNearMax',
    metric: 'bore_server_sessions',
    on: SERVER,
    bad: 91,
    below: 90,
    of: { bore_server_sessions_max: 100 },
    summary: 's1 carries 91% of the sessions that it may',
  }),
  threshold({
    alert: 'FleetFiguresOld',
    metric: 'bore_fleet_sample_age_seconds',
    on: BACKEND,
    bad: 301,
    below: 300,
    summary: 'b1 shows figures of the fleet that are 5m 1s old',
  }),
  threshold({
    alert: 'BoreServerLost',
    metric: 'bore_servers',
    on: { ...BACKEND, state: 'offline' },
    labels: JOB,
    bad: 1,
    below: 0,
    summary: '1 bore-server(s) do not report',
  }),
  threshold({
    alert: 'NoBoreServerOnline',
    metric: 'bore_servers',
    on: { ...BACKEND, state: 'online' },
    labels: JOB,
    bad: 0,
    below: 1,
    summary: 'No bore-server is online',
  }),
  threshold({
    alert: 'CircuitBreakerOpen',
    metric: 'bore_circuit_breaker_state',
    on: S7,
    labels: { ...JOB, server: 's7' },
    bad: 2,
    below: 0,
    summary: 'Backends do not reach s7',
  }),
  threshold({
    alert: 'BoreServerWithoutControlPlane',
    metric: 'bore_server_control_plane_up',
    on: SERVER,
    bad: 0,
    below: 1,
    summary: 's1 gets no answer from the backends',
  }),
  growth({
    alert: 'BoreServerStateNotSaved',
    metric: 'bore_server_state_save_failures_total',
    on: SERVER,
    bad: 1,
    below: 0,
    summary: 's1 could not write its state file',
  }),
  growth({
    alert: 'ConnectionRecordsLost',
    metric: 'bore_server_connection_records_lost_total',
    on: SERVER,
    bad: 1,
    below: 0,
    summary: 's1 gave up 15 connection record(s)',
  }),
  threshold({
    alert: 'UsageReportsLate',
    metric: 'bore_server_report_age_seconds',
    on: SERVER,
    bad: 301,
    below: 300,
    summary: 'Usage of s1 has waited 5m 1s',
  }),
  {
    ...growth({
      alert: 'UsageReportsRefused',
      metric: 'bore_usage_reports_total',
      on: { ...BACKEND, outcome: 'refused' },
      labels: JOB,
      bad: 1,
      below: 0,
      summary: '15 usage report(s) were refused',
    }),
    silent: {
      'others are booked or repeated': {
        [series('bore_usage_reports_total', { ...BACKEND, outcome: 'booked' })]: growing(100),
        [series('bore_usage_reports_total', { ...BACKEND, outcome: 'repeated' })]: growing(100),
        [series('bore_usage_reports_total', { ...BACKEND, outcome: 'refused' })]: steady(7),
      },
    },
  },
  growth({
    alert: 'CountersReconciled',
    metric: 'bore_reconciliations_total',
    on: { ...BACKEND, counter: 'user' },
    labels: { ...JOB, counter: 'user' },
    bad: 1,
    below: 0,
    summary: '29 counter(s) "user" were wrong and have been put right',
  }),
  threshold({
    alert: 'QueueDown',
    metric: 'bore_queue_up',
    on: QUEUE,
    bad: 0,
    below: 1,
    summary: 'b1 does not reach the queue housekeeping',
  }),
  threshold({
    alert: 'QueueStuck',
    metric: 'bore_queue_oldest_waiting_seconds',
    on: QUEUE,
    labels: { ...JOB, queue: 'housekeeping' },
    bad: 301,
    below: 300,
    good: 0,
    summary: 'A job of housekeeping has waited 5m 1s',
  }),
  {
    alert: 'JobsNotCompleting',
    bad: { [completed('b1')]: '5x60 0+1x60', [completed('b2')]: '7x120' },
    firesAt: 59,
    silentAt: 110,
    labels: { ...JOB, task: 'close-due-tunnels' },
    summary: 'close-due-tunnels has not been completed for half an hour',
    silent: {
      'one backend does them all': { [completed('b1')]: steady(5), [completed('b2')]: growing(1) },
      'a task that waits for something to do': {
        [series('bore_jobs_total', { ...BACKEND, task: 'notify', outcome: 'completed' })]: steady(3),
      },
    },
  },
  growth({
    alert: 'JobsFailing',
    metric: 'bore_jobs_total',
    on: { ...BACKEND, task: 'relocate-tunnels', outcome: 'failed' },
    labels: { ...JOB, task: 'relocate-tunnels' },
    bad: 1,
    below: 0.19,
    summary: 'relocate-tunnels has failed 15 times in 15 minutes',
  }),
  growth({
    alert: 'NotificationsFailing',
    metric: 'bore_notifications_total',
    on: { ...BACKEND, target: 'slack', outcome: 'given_up' },
    labels: { ...JOB, target: 'slack' },
    bad: 1,
    below: 0,
    summary: '29 notification(s) to slack were given up',
  }),
  threshold({
    alert: 'EventsLate',
    metric: 'bore_events_lag_seconds',
    on: BACKEND,
    bad: 11,
    below: 10,
    summary: 'Events of b1 are 11s late',
  }),
  threshold({
    alert: 'EventStreamsNearMax',
    metric: 'bore_event_streams',
    on: BACKEND,
    bad: 91,
    below: 90,
    of: { bore_event_streams_max: 100 },
    summary: 'b1 carries 91% of the event streams that it may',
  }),
  {
    alert: 'DatabaseAway',
    bad: {
      [series('bore_database_up', BACKEND)]: gauge(0, 1),
      [series('bore_database_up', { ...JOB, instance: 'b2' })]: steady(0),
    },
    ...TIMES,
    labels: JOB,
    summary: 'No backend reaches PostgreSQL',
    silent: {
      'one reaches it': {
        [series('bore_database_up', BACKEND)]: steady(0),
        [series('bore_database_up', { ...JOB, instance: 'b2' })]: steady(1),
      },
    },
  },
  threshold({
    alert: 'BackendWithoutDatabase',
    metric: 'bore_database_up',
    on: BACKEND,
    bad: 0,
    below: 1,
    summary: 'b1 does not reach PostgreSQL',
  }),
  threshold({
    alert: 'BackendWithoutRedis',
    metric: 'bore_redis_up',
    on: BACKEND,
    bad: 0,
    below: 1,
    summary: 'b1 does not reach Redis',
  }),
  threshold({
    alert: 'DatabaseReplicaLeftOut',
    metric: 'bore_database_replicas',
    on: { ...BACKEND, state: 'left_out' },
    labels: BACKEND,
    bad: 1,
    below: 0,
    summary: 'b1 leaves out 1 read replica(s)',
  }),
  threshold({
    alert: 'DatabasePoolWaiting',
    metric: 'bore_database_pool_waiting',
    on: { ...BACKEND, pool: 'primary' },
    bad: 6,
    below: 5,
    summary: '6 requests of b1 wait for a connection of the pool primary',
  }),
  {
    alert: 'DatabaseConnectionPoolExhausted',
    bad: { [connections('bore_db')]: gauge(181, 90), [connections('postgres')]: steady(1), [ALLOWED]: steady(200) },
    ...TIMES,
    labels: POSTGRES,
    summary: 'PostgreSQL has 91% of its connections',
    silent: {
      'just below': {
        [connections('bore_db')]: steady(179),
        [connections('postgres')]: steady(1),
        [ALLOWED]: steady(200),
      },
      'many, of more': { [connections('bore_db')]: steady(400), [ALLOWED]: steady(1000) },
    },
  },
  threshold({
    alert: 'PostgresDown',
    metric: 'pg_up',
    on: POSTGRES,
    bad: 0,
    below: 1,
    summary: 'PostgreSQL does not answer its exporter at p1',
  }),
  threshold({
    alert: 'RedisDown',
    metric: 'redis_up',
    on: REDIS,
    bad: 0,
    below: 1,
    summary: 'Redis does not answer its exporter at r1',
  }),
  threshold({
    alert: 'RedisMemoryHigh',
    metric: 'redis_memory_used_bytes',
    on: REDIS,
    bad: 91,
    below: 90,
    of: { redis_memory_max_bytes: 100 },
    summary: 'Redis uses 91% of its memory',
  }),
  threshold({
    alert: 'NginxDown',
    metric: 'nginx_up',
    on: NGINX,
    bad: 0,
    below: 1,
    summary: 'nginx does not answer its exporter at n1',
  }),
  certificate('CertificateExpiresSoon', 14),
  certificate('CertificateExpiresNow', 3),
  threshold({
    alert: 'ProbeFailing',
    metric: 'probe_success',
    on: SITE,
    bad: 0,
    below: 1,
    summary: 'https://api does not answer as it should to who asks from outside',
  }),
  threshold({
    alert: 'TargetDown',
    metric: 'up',
    on: NGINX,
    bad: 0,
    below: 1,
    summary: 'nginx at n1 cannot be scraped',
  }),
  {
    alert: 'AllBackendsDown',
    bad: { [series('up', BACKEND)]: gauge(0, 1), [series('up', { ...JOB, instance: 'b2' })]: steady(0) },
    ...TIMES,
    labels: JOB,
    summary: 'No backend can be scraped',
    silent: {
      'one is left': { [series('up', BACKEND)]: steady(0), [series('up', { ...JOB, instance: 'b2' })]: steady(1) },
    },
  },
  growth({
    alert: 'DiscoveryFailing',
    metric: 'prometheus_sd_http_failures_total',
    on: { job: 'prometheus', instance: 'p' },
    bad: 1,
    below: 0.3,
    summary: 'Prometheus cannot ask a backend which bore-servers there are',
  }),
  {
    alert: 'ProcessRestarting',
    bad: {
      [series('process_start_time_seconds', SERVER)]: `${[1, 2, 3, 4, 5, 6, 7].map((n) => `${n}x3`).join(' ')} 7x100`,
    },
    ...TIMES,
    labels: SERVER,
    summary: 'bore-server at s1 has started 3 times in 15 minutes',
    silent: {
      'an update, and a second try': { [series('process_start_time_seconds', SERVER)]: '1x19 2x5 3x100' },
      'a program that is not ours': { [series('process_start_time_seconds', NGINX)]: growing(1) },
    },
  },
  threshold({
    alert: 'FileDescriptorsNearMax',
    metric: 'process_open_fds',
    on: SERVER,
    bad: 81,
    below: 80,
    of: { process_max_fds: 100 },
    summary: 'bore-server at s1 has 81% of its file descriptors',
  }),
  threshold({
    alert: 'EventLoopSlow',
    metric: 'nodejs_eventloop_lag_p99_seconds',
    on: BACKEND,
    bad: 0.101,
    below: 0.1,
    summary: 'The event loop of bore-backend at b1 is 101ms late',
  }),
  threshold({
    alert: 'DiskAlmostFull',
    metric: 'node_filesystem_avail_bytes',
    on: { job: 'machines', instance: 'm1', fstype: 'ext4', mountpoint: '/' },
    bad: 9,
    below: 10,
    of: { node_filesystem_size_bytes: 100 },
    summary: '/ of m1 has 9% left',
  }),
];
