import { Global, Module } from '@nestjs/common';

import { CONFIG, type Config } from '../config/config.js';
import { LiveLogLevel } from './live-log-level.js';
import { createLogger, LOGGER } from './logger.js';

/** Provides the process's logger under `LOGGER`, and keeps it at the level that counts. */
@Global()
@Module({
  providers: [
    { provide: LOGGER, inject: [CONFIG], useFactory: (config: Config) => createLogger(config.LOG_LEVEL) },
    LiveLogLevel,
  ],
  exports: [LOGGER, LiveLogLevel],
})
export class LoggingModule {}
