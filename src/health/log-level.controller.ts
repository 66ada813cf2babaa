import { Body, Controller, Get, Inject, Put } from '@nestjs/common';
import { ApiTags } from '@nestjs/swagger';

import { CONFIG, type Config } from '../platform/config/config.js';
import { Answers } from '../platform/http/answers.decorator.js';
import { AdminOnly } from '../platform/http/route-metadata.js';
import { LiveLogLevel } from '../platform/logging/live-log-level.js';
import { LogLevelView, SetLogLevelRequest } from './log-level.js';
import { LogLevelRepository } from './log-level.repository.js';

@ApiTags('admin')
@Controller('admin/log-level')
export class LogLevelController {
  constructor(
    @Inject(CONFIG) private readonly config: Config,
    private readonly levels: LogLevelRepository,
    private readonly live: LiveLogLevel,
  ) {}

  @Get()
  @AdminOnly('admin:read')
  @Answers(200, LogLevelView)
  async show(): Promise<LogLevelView> {
    await this.live.read();
    const { level = null, until = null } = this.live.current ?? {};
    return { level, until: until?.toISOString() ?? null, configured: this.config.LOG_LEVEL };
  }

  @Put()
  @AdminOnly('admin:write')
  @Answers(200, LogLevelView)
  async set(@Body({ schema: SetLogLevelRequest }) request: SetLogLevelRequest): Promise<LogLevelView> {
    await this.levels.set(request);
    return this.show();
  }
}
