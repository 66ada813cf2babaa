import type { ClusterSettings } from './cluster-settings.js';
import { isPrometheusInstalled } from './prometheus.js';
import { administrator, apiVariable, firstTunnel, type MessageOptions } from './start-message.js';

/** What runs where; every command in it works as it stands. */
export function clusterMessage(options: MessageOptions<ClusterSettings>): string {
  const { settings, stateDir, logDir } = options;
  const { host, bind, apiPort, controlPort, adminPort, portRange, machines } = settings;
  const api = `http://${host}:${apiPort}`;
  const prometheus = isPrometheusInstalled()
    ? `http://${bind}:${settings.prometheusPort}`
    : 'is not installed, and left out (apt-get install prometheus)';
  return `
bore-platform runs as a cluster.

  API             ${api}/api/v1, described at ${api}/api/docs
  Tunnels         ${host}:${controlPort}, with public ports ${portRange.min}–${portRange.max}
  Administrator   ${administrator(options)}

nginx is at these addresses. Behind it:

${machines.map(({ name, address }, i) => `  ${address.padEnd(15)} backend-${i + 1} on ${apiPort}, bore-server-${name} on ${controlPort} (health and metrics on ${adminPort})`).join('\n')}
  PostgreSQL      127.0.0.1:${settings.databasePort}, its replica 127.0.0.1:${settings.replicaPort}, database bore_db, user bore_user
  Redis           127.0.0.1:${settings.redisPort}
  Prometheus      ${prometheus}
  Data            ${stateDir}
  Logs            ${logDir}

${firstTunnel(settings, stateDir)}
Nothing listens on 8080? BORE_STATE_DIR=${stateDir} ${apiVariable(settings)}npm run demo brings its own.
Ctrl-C stops everything; the next npm run cluster finds its data again.

`;
}
