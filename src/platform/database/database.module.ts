import { Global, Module } from '@nestjs/common';
import { APP_INTERCEPTOR } from '@nestjs/core';

import { AccountWrites } from './account-writes.js';
import { AccountWritesInterceptor } from './account-writes.interceptor.js';
import { ConnectionBudget } from './connection-budget.js';
import { Database } from './database.js';
import { SchemaCheck } from './schema-check.js';

@Global()
@Module({
  providers: [
    Database,
    SchemaCheck,
    AccountWrites,
    ConnectionBudget,
    { provide: APP_INTERCEPTOR, useClass: AccountWritesInterceptor },
  ],
  exports: [Database],
})
export class DatabaseModule {}
