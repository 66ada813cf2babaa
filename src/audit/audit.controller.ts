import { Controller, Get, Query } from '@nestjs/common';
import { ApiTags } from '@nestjs/swagger';

import { Answers } from '../platform/http/answers.decorator.js';
import { cutPage, keyOfCursor, type Page, pageOf } from '../platform/http/page.js';
import { AdminOnly } from '../platform/http/route-metadata.js';
import { AuditEntriesRepository } from './audit-entries.repository.js';
import { AuditEntryView, AuditKey, ListAuditQuery } from './audit-entry.js';

@ApiTags('admin')
@Controller('admin/audit')
export class AuditController {
  constructor(private readonly entries: AuditEntriesRepository) {}

  @Get()
  @AdminOnly('admin:read')
  @Answers(200, pageOf(AuditEntryView))
  async list(@Query({ schema: ListAuditQuery }) query: ListAuditQuery): Promise<Page<AuditEntryView>> {
    const before = query.cursor === undefined ? undefined : keyOfCursor(query.cursor, AuditKey);
    return cutPage(await this.entries.list(query, before), query.limit);
  }
}
