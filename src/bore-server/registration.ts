import type { RegisterRequest } from '../protocol/plane-api.js';
import type { Options } from './options.js';

/** How the server presents itself; what the operator did not set is left to the control plane. */
export function registrationOf(
  { host, location, maxTunnels, maxBandwidthMbps, portRange, adminUrl, adminBindAddr, peerHost }: Options,
  { serverId, instanceId }: { serverId: string; instanceId: string },
  { controlPort, adminPort, peerPort }: { controlPort: number; adminPort: number; peerPort: number | undefined },
): RegisterRequest {
  // a name that servers share leads to any of them
  const adminHost = peerHost ?? host ?? (adminBindAddr === '0.0.0.0' ? '127.0.0.1' : adminBindAddr);
  return {
    serverId,
    instanceId,
    controlPort,
    adminUrl: adminUrl ?? `http://${adminHost.includes(':') ? `[${adminHost}]` : adminHost}:${adminPort}`,
    portRange,
    ...(peerPort !== undefined && peerHost !== undefined && { peer: { host: peerHost, port: peerPort } }),
    ...(host !== undefined && { host }),
    ...(location !== undefined && { location }),
    ...(maxTunnels !== undefined && { maxTunnels }),
    ...(maxBandwidthMbps !== undefined && { maxBandwidthMbps }),
  };
}
