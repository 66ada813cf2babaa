import { Body, Controller, Delete, Get, Header, Param, Post, Query } from '@nestjs/common';
import { ApiTags } from '@nestjs/swagger';

import { Answers } from '../platform/http/answers.decorator.js';
import { type Page, PageQuery } from '../platform/http/page.js';
import { ResourceId } from '../platform/http/resource-id.js';
import { CurrentLogin, type LoggedIn, LoginOnly } from '../platform/http/route-metadata.js';
import { CurrentNewResource, Idempotent } from '../platform/idempotency/idempotent.js';
import type { NewResource } from '../platform/idempotency/idempotency-keys.repository.js';
import { ApiKeyPage, type ApiKeyView, CreateApiKeyRequest, CreatedApiKey } from './api-key.schemas.js';
import { ApiKeysService } from './api-keys.service.js';

@ApiTags('auth')
@Controller('auth/api-keys')
export class ApiKeysController {
  constructor(private readonly keys: ApiKeysService) {}

  @Post()
  @LoginOnly()
  @Idempotent()
  @Header('cache-control', 'no-store')
  @Answers(201, CreatedApiKey, 'FORBIDDEN', 'API_KEY_LIMIT')
  create(
    @CurrentLogin() caller: LoggedIn,
    @Body({ schema: CreateApiKeyRequest }) body: CreateApiKeyRequest,
    @CurrentNewResource() resource: NewResource,
  ): Promise<CreatedApiKey> {
    return this.keys.create(caller, body, resource);
  }

  @Get()
  @LoginOnly()
  @Answers(200, ApiKeyPage)
  list(@CurrentLogin() caller: LoggedIn, @Query({ schema: PageQuery }) query: PageQuery): Promise<Page<ApiKeyView>> {
    return this.keys.list(caller, query);
  }

  @Delete(':id')
  @LoginOnly()
  @Answers(204, null, 'NOT_FOUND')
  revoke(@CurrentLogin() caller: LoggedIn, @Param('id', { schema: ResourceId }) id: string): Promise<void> {
    return this.keys.revoke(caller, id);
  }
}
