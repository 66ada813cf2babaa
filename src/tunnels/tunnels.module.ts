import { Module } from '@nestjs/common';

import { AuditModule } from '../audit/audit.module.js';
import { ServersModule } from '../servers/servers.module.js';
import { UsersModule } from '../users/users.module.js';
import { AdminTunnelsController } from './admin-tunnels.controller.js';
import { AdminUsersController } from './admin-users.controller.js';
import { AdministrationRepository } from './administration.repository.js';
import { AdministrationService } from './administration.service.js';
import { AllTunnelsRepository } from './all-tunnels.repository.js';
import { ClientSessionsRepository } from './client-sessions.repository.js';
import { EvidenceController } from './evidence.controller.js';
import { EvidenceRepository } from './evidence.repository.js';
import { EvidenceService } from './evidence.service.js';
import { LedgerController } from './ledger.controller.js';
import { LedgerRepository } from './ledger.repository.js';
import { LedgerService } from './ledger.service.js';
import { PlaneController } from './plane.controller.js';
import { PlaneService } from './plane.service.js';
import { QuarantineController } from './quarantine.controller.js';
import { QuarantineRepository } from './quarantine.repository.js';
import { RelocationService } from './relocation.service.js';
import { RelocationsRepository } from './relocations.repository.js';
import { TunnelFencesRepository } from './tunnel-fences.repository.js';
import { TunnelKeys } from './tunnel-key.js';
import { TunnelsController } from './tunnels.controller.js';
import { TunnelsRepository } from './tunnels.repository.js';
import { TunnelsService } from './tunnels.service.js';

@Module({
  imports: [AuditModule, ServersModule, UsersModule],
  controllers: [
    TunnelsController,
    LedgerController,
    PlaneController,
    AdminTunnelsController,
    AdminUsersController,
    QuarantineController,
    EvidenceController,
  ],
  providers: [
    AdministrationRepository,
    AdministrationService,
    AllTunnelsRepository,
    ClientSessionsRepository,
    EvidenceRepository,
    EvidenceService,
    LedgerRepository,
    LedgerService,
    PlaneService,
    QuarantineRepository,
    RelocationService,
    RelocationsRepository,
    TunnelFencesRepository,
    TunnelKeys,
    TunnelsRepository,
    TunnelsService,
  ],
  exports: [LedgerRepository, PlaneService, QuarantineRepository, RelocationService, TunnelsRepository, TunnelsService],
})
export class TunnelsModule {}
