import { Global, Module } from '@nestjs/common';

import { IdempotencyKeysRepository } from './idempotency-keys.repository.js';

@Global()
@Module({ providers: [IdempotencyKeysRepository], exports: [IdempotencyKeysRepository] })
export class IdempotencyModule {}
