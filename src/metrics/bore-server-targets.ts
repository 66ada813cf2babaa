import { Injectable } from '@nestjs/common';

import { ServersRepository } from '../servers/servers.repository.js';

/** One bore-server as Prometheus's HTTP service discovery takes it (`http_sd_configs`). */
export interface TargetGroup {
  /** `host:port` of its admin surface. */
  readonly targets: [string];
  readonly labels: Readonly<Record<string, string>>;
}

/** Where the bore-servers' metrics are. */
@Injectable()
export class BoreServerTargets {
  constructor(private readonly servers: ServersRepository) {}

  /** Those that have registered and are not disabled; lost ones too: that they do not answer is what is to be seen. */
  async list(): Promise<TargetGroup[]> {
    const servers = await this.servers.withAdminSurface();
    return servers.map(({ id, location, state, adminUrl }) => {
      const { protocol, hostname, port, pathname } = new URL(adminUrl);
      const isTls = protocol === 'https:';
      return {
        targets: [`${hostname}:${port || (isTls ? 443 : 80)}`],
        labels: {
          __meta_bore_server_name: id,
          __meta_bore_server_location: location,
          __meta_bore_server_state: state,
          ...(isTls && { __scheme__: 'https' }),
          ...(pathname !== '/' && { __metrics_path__: new URL('metrics', adminUrl).pathname }),
        },
      };
    });
  }
}
