import { Controller, Get, Header, Query, StreamableFile } from '@nestjs/common';
import { ApiOkResponse, ApiTags } from '@nestjs/swagger';

import { Answers } from '../platform/http/answers.decorator.js';
import { AdminOnly, type Caller, CurrentCaller } from '../platform/http/route-metadata.js';
import { EvidenceQuery } from './evidence.js';
import { EvidenceService } from './evidence.service.js';

const NDJSON = 'application/x-ndjson';

@ApiTags('admin')
@Controller('admin/evidence')
export class EvidenceController {
  constructor(private readonly evidence: EvidenceService) {}

  @Get()
  @AdminOnly('admin:read')
  @ApiOkResponse({
    description:
      'Lines of JSON: `export`, `tunnel`s, `action`s, `session`s, `connection`s, and `end`, without which it was cut off',
    content: { [NDJSON]: { schema: { type: 'string' } } },
  })
  @Header('cache-control', 'no-store')
  @Answers(200, null)
  async export(
    @CurrentCaller() caller: Caller,
    @Query({ schema: EvidenceQuery }) query: EvidenceQuery,
  ): Promise<StreamableFile> {
    return new StreamableFile(await this.evidence.export(caller, query), { type: NDJSON });
  }
}
