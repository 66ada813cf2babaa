import type { RegisterRequest } from '../protocol/plane-api.js';
import type { Options } from './options.js';

/** How the server presents itself; what the operator did not set is left to the control plane. */
export function registrationOf(
  { host, location, maxTunnels, maxBandwidthMbps, portRange, adminUrl, adminBindAddr }: Options,
  { serverId, instanceId }: { serverId: string; instanceId: string },
  { controlPort, adminPort }: { controlPort: number; adminPort: number },
): RegisterRequest {
  const adminHost = host ?? (adminBindAddr === '0.0.0.0' ? '127.0.0.1' : adminBindAddr);
  return {
    serverId,
    instanceId,
    controlPort,
    adminUrl: adminUrl ?? `http://${adminHost.includes(':') ? `[${adminHost}]` : adminHost}:${adminPort}`,
    portRange,
    ...(host !== undefined && { host }),
    ...(location !== undefined && { location }),
    ...(maxTunnels !== undefined && { maxTunnels }),
    ...(maxBandwidthMbps !== undefined && { maxBandwidthMbps }),
  };
}
