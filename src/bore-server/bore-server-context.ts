import type { Logger } from 'pino';

import type { Fence, SessionEndReason, SessionRef } from '../protocol/plane-api.js';
import type { TunnelSettings } from '../protocol/tunnel-settings.js';
import type { Metrics } from './metrics.js';
import type { VisitorsContext } from './visitors.js';

/** What the server is made with. */
export interface BoreServerContext extends Omit<VisitorsContext, 'onLeave'> {
  /** Address of the public ports. */
  readonly bindTunnels: string;
  readonly metrics: Metrics;
  readonly logger: Logger;
  /** Called for each session that had begun, once. */
  readonly onSessionEnd: (ref: SessionRef & { reason: SessionEndReason }) => void;
  /** The control plane says that something of a tunnel is over, or that its owner has changed it. */
  readonly onFence: (fence: Fence) => void;
  readonly onSettings: (tunnelId: string, settings: TunnelSettings) => void;
}
