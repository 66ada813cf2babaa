import { Module } from '@nestjs/common';

import { AuditEntriesRepository } from './audit-entries.repository.js';
import { AuditLogRepository } from './audit-log.repository.js';
import { AuditController } from './audit.controller.js';

@Module({
  controllers: [AuditController],
  providers: [AuditEntriesRepository, AuditLogRepository],
  exports: [AuditLogRepository],
})
export class AuditModule {}
