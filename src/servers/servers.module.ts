import { Module } from '@nestjs/common';

import { AdminServersController } from './admin-servers.controller.js';
import { BoreServerClient } from './bore-server-client.js';
import { ServersRepository } from './servers.repository.js';
import { ServersService } from './servers.service.js';

@Module({
  controllers: [AdminServersController],
  providers: [BoreServerClient, ServersRepository, ServersService],
  exports: [BoreServerClient, ServersRepository],
})
export class ServersModule {}
