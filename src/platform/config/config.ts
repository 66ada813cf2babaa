import { z } from 'zod';

import { poolSizeOf } from '../database/pool-size.js';
import { ReplicaHosts } from './replica-hosts.js';
import { Secret } from './secret.js';
import {
  flag,
  hostAndPort,
  int,
  isOrigin,
  list,
  network,
  password,
  port,
  proxyNetwork,
  secret,
  strong,
  webhookSecret,
  webhookUrl,
} from './setting-kinds.js';

/** A setting is wrong; the message names every variable that is, one a line. */
export class ConfigError extends Error {
  override readonly name = 'ConfigError';
}

const Environment = z.object({
  NODE_ENV: z.enum(['development', 'production', 'test']).default('development'),
  /** Address to listen on. */
  HOST: z.string().default('0.0.0.0'),
  /** HTTP port; 0 takes a free one. */
  PORT: int(0, 65_535).default(3000),
  /** Bearer token that metrics are shown for. Without it, and without METRICS_PORT: to peers on private networks (metrics/metrics-access.ts). */
  METRICS_TOKEN: secret.optional(),
  /** A listener of its own for metrics, which the public one does not serve then. Each process of a host has the next port. */
  METRICS_HOST: z.string().default('127.0.0.1'),
  METRICS_PORT: port.optional(),
  /** Which of the processes that PM2 runs on this host this one is; PM2 sets it. */
  NODE_APP_INSTANCE: int(0, 1_000).default(0),
  LOG_LEVEL: z.enum(['fatal', 'error', 'warn', 'info', 'debug', 'trace', 'silent']).default('info'),

  JWT_SECRET: secret,
  /** Between backends and bore-servers. Comma-separated for rotation: the first is sent, all are accepted. */
  INTERNAL_API_KEY: list.pipe(z.array(strong).min(1)).transform((keys) => keys.map((key) => new Secret(key))),
  /** Seals tunnel keys at rest. Comma-separated for rotation: the first seals, all open. */
  TUNNEL_KEY_SECRET: list.pipe(z.array(strong).min(1)).transform((keys) => keys.map((key) => new Secret(key))),
  /** Life of an access token, in seconds. */
  ACCESS_TOKEN_SECONDS: int(30, 86_400).default(900),
  /** Life of a login, in days; refreshing does not extend it. */
  SESSION_DAYS: int(1, 365).default(30),
  /** A login that nobody has used for so long has ended. */
  SESSION_IDLE_DAYS: int(1, 365).default(14),
  ADMIN_EMAIL: z.email().optional(),
  ADMIN_PASSWORD: z
    .string()
    .min(12)
    .max(128)
    .transform((text) => new Secret(text))
    .optional(),

  DB_HOST: z.string().default('127.0.0.1'),
  DB_PORT: port.default(5432),
  DB_NAME: z.string().default('bore_db'),
  DB_USER: z.string().default('bore_user'),
  DB_PASSWORD: password,
  /** PostgreSQL itself, where DB_HOST is a pooler: for connections that LISTEN. */
  DB_DIRECT_HOST: z.string().optional(),
  DB_DIRECT_PORT: port.optional(),
  /** `host` or `host:port`: streaming replicas that answer what may be some seconds old. */
  DB_REPLICA_HOSTS: list.pipe(ReplicaHosts).default([]),
  /** What PostgreSQL (or a pooler before it) allows for this application, and how many backends share it: pool-size.ts. */
  DB_MAX_CONNECTIONS: int(10, 100_000).default(100),
  BACKEND_INSTANCES: int(1, 1_000).default(1),
  /** Connections of this process; not set: its share. */
  DB_POOL_SIZE: int(2, 200).optional(),

  /** Whether backends share what they count over Redis; without it each process counts for itself. */
  REDIS_ENABLED: flag.default(false),
  REDIS_MODE: z.enum(['standalone', 'sentinel', 'cluster']).default('standalone'),
  /** Of a stand-alone Redis; the other modes have REDIS_NODES. */
  REDIS_HOST: z.string().default('127.0.0.1'),
  REDIS_PORT: port.default(6379),
  /** The Sentinels, or some nodes of the cluster, as `host:port`. */
  REDIS_NODES: list.pipe(z.array(hostAndPort)).default([]),
  /** What the Sentinels call the master. */
  REDIS_SENTINEL_NAME: z.string().default('mymaster'),
  REDIS_USERNAME: z.string().optional(),
  REDIS_PASSWORD: password.optional(),
  REDIS_SENTINEL_PASSWORD: password.optional(),
  /** Certificates are checked; of an authority of one's own, Node reads them from NODE_EXTRA_CA_CERTS. */
  REDIS_TLS: flag.default(false),
  /** Without Redis, lets this backend run beside others on its database. Each counts and remembers for itself. */
  ALLOW_INSTANCES_WITHOUT_REDIS: flag.default(false),

  /** Load balancers in front of us: only from these addresses and networks is `X-Forwarded-For` believed. */
  TRUST_PROXY: list.pipe(z.array(proxyNetwork)).default([]),
  /** API requests of a user, or of an address without a login. */
  RATE_LIMIT_PER_MINUTE: int(1, 1_000_000).default(300),
  /** Of an address, at each of: logging in, refreshing, changing a password. */
  RATE_LIMIT_LOGINS_PER_MINUTE: int(1, 1_000_000).default(30),
  /** Of an address. */
  RATE_LIMIT_SIGNUPS_PER_HOUR: int(1, 1_000_000).default(20),
  /** Wrong passwords for one account from one address; the longer limits follow from it (auth/login-attempts.ts). */
  LOGIN_FAILURES_PER_MINUTE: int(1, 1_000_000).default(5),

  /** Limit of a bore-server that names none. */
  MAX_TUNNELS_PER_SERVER: int(1, 65_535).default(100),
  /** Mbit/s, the limit of each tunnel; times its tunnels, what placement expects of a bore-server that names none. */
  MAX_BANDWIDTH_PER_TUNNEL: int(1, 1_000_000).default(100),
  /** Tunnels open at once over all servers; not set: what the online servers can carry. */
  TOTAL_SYSTEM_CAPACITY: int(1, 10_000_000).optional(),
  RESERVED_CAPACITY_PERCENT: int(0, 99).default(20),
  PLAN_FREE_TUNNELS: int(0, 65_535).default(1),
  PLAN_PRO_TUNNELS: int(0, 65_535).default(5),
  PLAN_ENTERPRISE_TUNNELS: int(0, 65_535).default(20),
  /** How long a tunnel that nobody has connected keeps its port. */
  PENDING_TUNNEL_SECONDS: int(1, 86_400).default(600),
  /** How long a tunnel whose client is gone keeps its port. */
  OFFLINE_TUNNEL_SECONDS: int(1, 2_592_000).default(3600),

  /** Host and control port of a bore-server that names none. */
  BORE_SERVER_HOST: z.string().default('127.0.0.1'),
  BORE_SERVER_PORT: port.default(7835),
  HEARTBEAT_INTERVAL_MS: int(50, 60_000).default(5000),
  /** A bore-server is lost after this long without a heartbeat: three of them at the default. */
  SERVER_LEASE_SECONDS: int(1, 600).default(15),
  /** Seconds that a lost bore-server has to come back, before tunnels that allow it are moved to others. */
  SERVER_LOST_GRACE: int(0, 86_400).default(300),
  /** How often leases, deadlines and times to live are looked at: how late their end may come. */
  HOUSEKEEPING_INTERVAL_MS: int(50, 60_000).default(5000),
  /** How long visitors' connections can be looked up. */
  CONNECTION_RETENTION_DAYS: int(1, 3_650).default(30),
  /** How long hourly usage can be looked up: more than a year, so that a year can be compared with the one before. */
  USAGE_RETENTION_DAYS: int(1, 3_650).default(400),
  /** How long events can be replayed and looked up. */
  EVENT_RETENTION_HOURS: int(1, 8_760).default(72),
  /** Event streams (SSE and socket.io) that this process carries at once; each costs some 50 KB and a descriptor. */
  EVENT_STREAMS_MAX: int(1, 50_000).default(2000),
  /** Of these, of one user. */
  EVENT_STREAMS_PER_USER_MAX: int(1, 10_000).default(20),
  /** How long the audit log is kept. The database refuses to delete what is younger than 90 days. */
  AUDIT_RETENTION_DAYS: int(90, 3_650).default(400),
  /** How long the port of a tunnel suspended for abuse is kept from everybody, when the administrator names no time. */
  ABUSE_QUARANTINE_HOURS: int(0, 8_760).default(72),
  /**
   * How long to go on serving after `/health/ready` said no. Longer than a load balancer keeps idle connections and takes to look
   * elsewhere (docs/nginx.md); with the 10 s that requests then have to end, less than what kills the process (Kubernetes: 30 s).
   */
  SHUTDOWN_DRAIN_SECONDS: int(0, 300).default(10),

  /** Of a Slack app's incoming webhook. */
  SLACK_WEBHOOK_URL: webhookUrl.optional(),
  /** Ten and Slack are what the workers of the queue can send to at once. */
  WEBHOOK_URLS: list.pipe(z.array(webhookUrl).max(10)).default([]),
  /** Signs webhooks. Comma-separated for rotation: each signs. */
  WEBHOOK_SECRET: list.pipe(z.array(webhookSecret).max(5)).default([]),
  /** Networks that are not public, and may be sent notifications all the same. */
  WEBHOOK_ALLOW_INTERNAL: list.pipe(z.array(network).max(100)).default([]),
  /** What begins again within this time is not told again. */
  NOTIFICATION_COOLDOWN_SECONDS: int(0, 86_400).default(900),
  /** How long notifications can be looked up. */
  NOTIFICATION_RETENTION_DAYS: int(1, 3_650).default(30),
  /** Of the capacity, in use: from the first on administrators are told, and again when it is below the second. */
  CAPACITY_ALERT_PERCENT: int(1, 100).default(85),
  CAPACITY_RECOVERY_PERCENT: int(1, 100).default(80),

  /** Origins that browsers may call from; none by default. */
  ALLOWED_ORIGINS: list
    .pipe(
      z.array(
        z
          .url({ protocol: /^https?$/ })
          .refine(isOrigin, 'must be origins, such as https://app.example.com, without a path'),
      ),
    )
    .default([]),
});

/** Everything that the environment decides, parsed. */
export type Config = Readonly<z.output<typeof Environment> & { DB_POOL_SIZE: number }>;

/** Injection token of {@link Config}. */
export const CONFIG = Symbol('CONFIG');

/**
 * Reads and checks the environment. An empty variable counts as not set.
 * @throws ConfigError naming every variable that is missing or wrong; values are never part of the message.
 */
export function readConfig(environment: NodeJS.ProcessEnv): Config {
  const present = Object.fromEntries(
    Object.entries(environment).filter(([, value]) => value !== undefined && value !== ''),
  );
  const parsed = Environment.safeParse(present);
  if (!parsed.success) {
    const lines = parsed.error.issues.map((issue) => `${String(issue.path[0])} ${describe(issue)}`);
    throw new ConfigError([...new Set(lines)].join('\n'));
  }
  const config = parsed.data;
  if (config.SERVER_LEASE_SECONDS * 1000 < config.HEARTBEAT_INTERVAL_MS * 2) {
    throw new ConfigError(
      'SERVER_LEASE_SECONDS must be at least two HEARTBEAT_INTERVAL_MS, or one late heartbeat loses a server',
    );
  }
  if (!config.ADMIN_EMAIL !== !config.ADMIN_PASSWORD) {
    throw new ConfigError(
      `${config.ADMIN_EMAIL ? 'ADMIN_PASSWORD' : 'ADMIN_EMAIL'} is missing: the first administrator needs both ADMIN_EMAIL and ADMIN_PASSWORD`,
    );
  }
  if (config.REDIS_ENABLED && config.REDIS_MODE !== 'standalone' && config.REDIS_NODES.length === 0) {
    throw new ConfigError(`REDIS_NODES is missing: REDIS_MODE=${config.REDIS_MODE} needs it`);
  }
  if (config.METRICS_PORT !== undefined && config.METRICS_PORT + config.NODE_APP_INSTANCE > 65_535) {
    throw new ConfigError('METRICS_PORT leaves no port for this process: NODE_APP_INSTANCE is added to it');
  }
  if (config.WEBHOOK_URLS.length > 0 && config.WEBHOOK_SECRET.length === 0) {
    throw new ConfigError('WEBHOOK_SECRET is missing: receivers at WEBHOOK_URLS know by its signature that it is us');
  }
  if (config.CAPACITY_RECOVERY_PERCENT > config.CAPACITY_ALERT_PERCENT) {
    throw new ConfigError('CAPACITY_RECOVERY_PERCENT must not be above CAPACITY_ALERT_PERCENT');
  }
  const poolSize = poolSizeOf(config);
  if (typeof poolSize === 'string') throw new ConfigError(poolSize);
  return { ...config, DB_POOL_SIZE: poolSize };
}

function describe(issue: z.core.$ZodIssue): string {
  return issue.code === 'invalid_type' && issue.input === undefined ? 'is missing' : issue.message;
}
