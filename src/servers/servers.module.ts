import { Module } from '@nestjs/common';

import { AdminServersController } from './admin-servers.controller.js';
import { BoreServerClient } from './bore-server-client.js';
import { BreakerExchange } from './breaker-exchange.js';
import { BreakerViewsRepository } from './breaker-views.repository.js';
import { CircuitBreakerController } from './circuit-breaker.controller.js';
import { PeerDirectories } from './peer-directories.js';
import { ServerAdministrationRepository } from './server-administration.repository.js';
import { ServersRepository } from './servers.repository.js';
import { ServersService } from './servers.service.js';

@Module({
  controllers: [AdminServersController, CircuitBreakerController],
  providers: [
    BoreServerClient,
    BreakerExchange,
    BreakerViewsRepository,
    PeerDirectories,
    ServerAdministrationRepository,
    ServersRepository,
    ServersService,
  ],
  exports: [BoreServerClient, PeerDirectories, ServersRepository],
})
export class ServersModule {}
