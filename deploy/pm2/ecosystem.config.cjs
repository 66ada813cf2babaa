/**
 * PM2 (docs/systemd.md): `pm2 start deploy/pm2/ecosystem.config.cjs --only bore-backend`, or `--only bore-server`.
 *
 * Backends run in fork mode, each on a port of its own: a balancer then chooses among them as it does among machines, socket.io's polling
 * stays with one, and Prometheus sees each. The programs read their settings themselves (--env-file): what PM2 was told, it would write
 * to disk with `pm2 save`, secrets too.
 */
const folder = process.env.BORE_HOME ?? '/opt/bore-platform';
const settings = process.env.BORE_SETTINGS ?? '/etc/bore-platform';

/** Of this machine. BACKEND_INSTANCES in backend.env counts those of all machines, so that their pools fit into PostgreSQL. */
const backends = Number(process.env.BORE_BACKENDS ?? 2);

const common = {
  exec_mode: 'fork',
  // as long as it takes; at once at first, then every 15 s at most
  exp_backoff_restart_delay: 100,
  merge_logs: true,
};

module.exports = {
  apps: [
    {
      ...common,
      name: 'bore-backend',
      cwd: `${folder}/backend`,
      script: 'dist/main.js',
      node_args: `--env-file=${settings}/backend.env`,
      instances: backends,
      increment_var: 'PORT',
      env: { NODE_ENV: 'production', PORT: process.env.PORT ?? 3000 },
      // it says so when it listens: `pm2 reload` takes the next one then
      wait_ready: true,
      listen_timeout: 30_000,
      // SHUTDOWN_DRAIN_SECONDS (10), 10 s for requests under way, and some more
      kill_timeout: 30_000,
    },
    {
      ...common,
      name: 'bore-server',
      cwd: process.env.BORE_DATA_DIR ?? '/var/lib/bore',
      script: `${folder}/bore-server/dist/bore-server/main.js`,
      node_args: `--env-file=${settings}/bore-server.env`,
      env: { NODE_ENV: 'production' },
      // BORE_DRAIN_SECONDS (30), and then it saves its state
      kill_timeout: 45_000,
    },
  ],
};
