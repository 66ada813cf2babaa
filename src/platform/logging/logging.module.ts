import { Global, Module } from '@nestjs/common';

import { CONFIG, type Config } from '../config/config.js';
import { createLogger, LOGGER } from './logger.js';

/** Provides the process's logger under `LOGGER`. */
@Global()
@Module({
  providers: [{ provide: LOGGER, inject: [CONFIG], useFactory: (config: Config) => createLogger(config.LOG_LEVEL) }],
  exports: [LOGGER],
})
export class LoggingModule {}
