import { readFileSync } from 'node:fs';
import path from 'node:path';

import { PROJECT_DIR } from '../../src/local/state-folders.js';
import { RECORDINGS } from './rule-files.js';

const DOC = path.join(PROJECT_DIR, 'docs/metrics.md');

/** Of others' programs, as far as we look at them: each is an exporter of Debian, prom-client, or Prometheus itself. */
const FOREIGN = `
  up
  ALERTS
  prometheus_sd_http_failures_total
  process_start_time_seconds process_open_fds process_max_fds process_cpu_seconds_total
  process_resident_memory_bytes
  nodejs_eventloop_lag_p99_seconds
  pg_up pg_settings_max_connections pg_stat_database_numbackends pg_stat_database_xact_commit
  pg_stat_database_xact_rollback pg_stat_database_blks_hit pg_stat_database_blks_read
  redis_up redis_memory_used_bytes redis_memory_max_bytes redis_connected_clients redis_commands_processed_total
  redis_evicted_keys_total
  nginx_up nginx_connections_active nginx_connections_waiting nginx_http_requests_total
  node_filesystem_avail_bytes node_filesystem_size_bytes
  probe_ssl_earliest_cert_expiry probe_success
`
  .trim()
  .split(/\s+/);

/** Every name that an expression of ours may ask for. */
export function knownMetrics(): ReadonlySet<string> {
  const rows = [...readFileSync(DOC, 'utf8').matchAll(/^\| `(\w+)`\s+\| (counter|gauge|histogram)\s+\|/gm)];
  const ours = rows.flatMap(([, name = '', type]) =>
    type === 'histogram' ? [`${name}_bucket`, `${name}_count`, `${name}_sum`] : [name],
  );
  return new Set([...ours, ...FOREIGN, ...RECORDINGS.map(({ record }) => record)]);
}
