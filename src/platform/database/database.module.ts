import { Global, Module } from '@nestjs/common';

import { Database } from './database.js';
import { SchemaCheck } from './schema-check.js';

@Global()
@Module({ providers: [Database, SchemaCheck], exports: [Database] })
export class DatabaseModule {}
