import { Controller, Get, Res } from '@nestjs/common';
import { ApiTags } from '@nestjs/swagger';
import type { FastifyReply } from 'fastify';

import { Answers } from '../platform/http/answers.decorator.js';
import { Public } from '../platform/http/route-metadata.js';
import { StatusView } from './status.js';
import { StatusService } from './status.service.js';

@ApiTags('health')
@Public()
@Controller('system/status')
export class StatusController {
  constructor(private readonly status: StatusService) {}

  /** How the platform is, by component and location, for a status page. Looked at once in ten seconds, whoever asks. */
  @Get()
  @Answers(200, StatusView)
  async show(@Res({ passthrough: true }) reply: FastifyReply): Promise<StatusView> {
    const { view, maxAgeSeconds } = await this.status.show();
    // here and not by a decorator: an error must not be kept
    void reply.header('cache-control', `public, max-age=${maxAgeSeconds}`);
    return view;
  }
}
