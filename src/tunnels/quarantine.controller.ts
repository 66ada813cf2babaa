import { Controller, Delete, Get, Param, Query } from '@nestjs/common';
import { ApiTags } from '@nestjs/swagger';
import { z } from 'zod';

import { PlatformError } from '../platform/errors/error-register.js';
import { Answers } from '../platform/http/answers.decorator.js';
import { cutPage, keyOfCursor, type Page, pageOf } from '../platform/http/page.js';
import { AdminOnly } from '../platform/http/route-metadata.js';
import { ServerId } from '../protocol/plane-api.js';
import { keyOfPort, ListQuarantineQuery, PortKeyText, QuarantinedPortView } from './quarantine.js';
import { QuarantineRepository } from './quarantine.repository.js';

const Port = z.coerce.number().int().min(1).max(65_535);

@ApiTags('admin')
@Controller('admin/quarantine')
export class QuarantineController {
  constructor(private readonly quarantine: QuarantineRepository) {}

  @Get()
  @AdminOnly('admin:read')
  @Answers(200, pageOf(QuarantinedPortView))
  async list(@Query({ schema: ListQuarantineQuery }) query: ListQuarantineQuery): Promise<Page<QuarantinedPortView>> {
    const after = query.cursor === undefined ? undefined : keyOfCursor(query.cursor, PortKeyText);
    const rows = await this.quarantine.list(query, after);
    const page = cutPage(
      rows.map((row) => ({ ...row, id: keyOfPort(row) })),
      query.limit,
    );
    return {
      ...page,
      items: page.items.map((row) => ({
        ...row,
        until: row.until.toISOString(),
        createdAt: row.createdAt.toISOString(),
      })),
    };
  }

  @Delete(':serverId/:port')
  @AdminOnly('admin:write')
  @Answers(204, null, 'NOT_FOUND')
  async lift(
    @Param('serverId', { schema: ServerId }) serverId: string,
    @Param('port', { schema: Port }) port: number,
  ): Promise<void> {
    if (!(await this.quarantine.lift({ serverId, port }))) throw new PlatformError('NOT_FOUND');
  }
}
