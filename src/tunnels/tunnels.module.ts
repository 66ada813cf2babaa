import { Module } from '@nestjs/common';

import { ServersModule } from '../servers/servers.module.js';
import { ClientSessionsRepository } from './client-sessions.repository.js';
import { LedgerController } from './ledger.controller.js';
import { LedgerRepository } from './ledger.repository.js';
import { LedgerService } from './ledger.service.js';
import { PlaneController } from './plane.controller.js';
import { PlaneService } from './plane.service.js';
import { TunnelKeys } from './tunnel-key.js';
import { TunnelsController } from './tunnels.controller.js';
import { TunnelsRepository } from './tunnels.repository.js';
import { TunnelsService } from './tunnels.service.js';

@Module({
  imports: [ServersModule],
  controllers: [TunnelsController, LedgerController, PlaneController],
  providers: [
    ClientSessionsRepository,
    LedgerRepository,
    LedgerService,
    PlaneService,
    TunnelKeys,
    TunnelsRepository,
    TunnelsService,
  ],
  exports: [LedgerRepository, TunnelsRepository, TunnelsService],
})
export class TunnelsModule {}
