import { Body, Controller, Header, Param, Post } from '@nestjs/common';
import { ApiTags } from '@nestjs/swagger';

import { Answers } from '../platform/http/answers.decorator.js';
import { InternalOnly } from '../platform/http/route-metadata.js';
import { LocateRequest, LocateResponse } from '../protocol/locate.js';
import {
  AuthorizeRequest,
  Grant,
  HeartbeatRequest,
  HeartbeatResponse,
  RegisterRequest,
  RegisterResponse,
  ServerId,
} from '../protocol/plane-api.js';
import { PlaneService } from './plane.service.js';

@ApiTags('internal')
@InternalOnly()
@Controller('internal')
export class PlaneController {
  constructor(private readonly plane: PlaneService) {}

  @Post('servers/register')
  @Answers(200, RegisterResponse, 'PORT_RANGE_TAKEN')
  register(@Body({ schema: RegisterRequest }) body: RegisterRequest): Promise<RegisterResponse> {
    return this.plane.register(body);
  }

  @Post('servers/:id/heartbeat')
  @Answers(200, HeartbeatResponse, 'SERVER_UNKNOWN', 'SERVER_SUPERSEDED')
  heartbeat(
    @Param('id', { schema: ServerId }) id: string,
    @Body({ schema: HeartbeatRequest }) body: HeartbeatRequest,
  ): Promise<HeartbeatResponse> {
    return this.plane.heartbeat(id, body);
  }

  @Post('tunnels/authorize')
  @Header('cache-control', 'no-store')
  @Answers(200, Grant, 'INVALID_SECRET', 'SERVER_UNKNOWN', 'SERVER_SUPERSEDED')
  authorize(@Body({ schema: AuthorizeRequest }) body: AuthorizeRequest): Promise<Grant> {
    return this.plane.authorize(body);
  }

  @Post('tunnels/locate')
  @Header('cache-control', 'no-store')
  @Answers(200, LocateResponse, 'INVALID_SECRET', 'PORT_REQUIRED', 'SERVER_UNKNOWN', 'SERVER_SUPERSEDED')
  locate(@Body({ schema: LocateRequest }) body: LocateRequest): Promise<LocateResponse> {
    return this.plane.locate(body);
  }
}
