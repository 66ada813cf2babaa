import { setTimeout } from 'node:timers/promises';

import { Controller, Get, Header, UseFilters } from '@nestjs/common';
import { ApiTags } from '@nestjs/swagger';
import { HealthCheck, HealthCheckService, type HealthCheckResult, HealthIndicatorService } from '@nestjs/terminus';

import { Database } from '../platform/database/database.js';
import { Lifecycle } from '../platform/http/lifecycle.js';
import { Public } from '../platform/http/route-metadata.js';
import { EvictionPolicy } from '../platform/redis/eviction-policy.js';
import { RedisConnection } from '../platform/redis/redis-connection.js';
import { HealthFilter } from './health.filter.js';

/** A load balancer asks every few seconds and gives up after a few: answer before it does. */
const DATABASE_TIMEOUT_MS = 2_000;

@ApiTags('health')
@Public()
@UseFilters(HealthFilter)
@Controller('health')
export class HealthController {
  constructor(
    private readonly health: HealthCheckService,
    private readonly indicators: HealthIndicatorService,
    private readonly database: Database,
    private readonly redis: RedisConnection,
    private readonly evictionPolicy: EvictionPolicy,
    private readonly lifecycle: Lifecycle,
  ) {}

  /** For load balancers: the same answer as `ready`. */
  @Get()
  @Header('cache-control', 'no-store')
  @HealthCheck()
  check(): Promise<HealthCheckResult> {
    return this.ready();
  }

  /** The process runs. Never looks at what it depends on: a restart would not mend that. */
  @Get('live')
  @Header('cache-control', 'no-store')
  @HealthCheck()
  live(): Promise<HealthCheckResult> {
    return this.health.check([]);
  }

  /** Whether requests should be sent here: the database answers, and the process is not stopping. Without Redis, or a replica, it is `degraded`, and ready. */
  @Get('ready')
  @Header('cache-control', 'no-store')
  @HealthCheck()
  ready(): Promise<HealthCheckResult> {
    const redis = this.redis.state === 'disabled' ? [] : [() => this.checkRedis()];
    const replicas = this.database.hasReplicas ? [() => this.checkReplicas()] : [];
    return this.health.check([() => this.checkLifecycle(), () => this.checkDatabase(), ...replicas, ...redis]);
  }

  private checkLifecycle() {
    const indicator = this.indicators.check('lifecycle');
    return this.lifecycle.draining ? indicator.down('draining') : indicator.up();
  }

  /** Never a reason to send requests elsewhere: all backends lose the same Redis, and go on without it. */
  private checkRedis() {
    const indicator = this.indicators.check('redis');
    if (this.redis.state !== 'up') return indicator.degraded('not reachable');
    const { complaint } = this.evictionPolicy;
    return complaint === undefined ? indicator.up() : indicator.degraded(complaint);
  }

  /** Never a reason to send requests elsewhere: the primary answers what they would. */
  private checkReplicas() {
    const indicator = this.indicators.check('replicas');
    const { inUse, leftOut } = this.database.countReplicas();
    return leftOut === 0 ? indicator.up() : indicator.degraded(`${inUse} of ${inUse + leftOut} in use`);
  }

  private async checkDatabase() {
    const indicator = this.indicators.check('database');
    try {
      await Promise.race([this.database.$queryRaw`SELECT 1`, lateAfter(DATABASE_TIMEOUT_MS)]);
      return indicator.up();
    } catch {
      // the reason names hosts and users: it is in the log of whoever needed the database, not in a public answer
      return indicator.down('not reachable');
    }
  }
}

async function lateAfter(milliseconds: number): Promise<never> {
  await setTimeout(milliseconds, undefined, { ref: false });
  throw new Error('no answer in time');
}
