import { Global, Module } from '@nestjs/common';
import { APP_GUARD, Reflector } from '@nestjs/core';

import { CONFIG, type Config } from '../config/config.js';
import { Counters } from './counters.js';
import { addressLimits, RateLimitGuard, userLimits } from './rate-limit.guard.js';

/** What counts, and the limits by address. Imported before the access guard's module: guards run in this order. */
@Global()
@Module({
  providers: [
    Counters,
    {
      provide: APP_GUARD,
      inject: [CONFIG, Counters, Reflector],
      useFactory: (config: Config, counters: Counters, reflector: Reflector) =>
        new RateLimitGuard(addressLimits(config, reflector), counters, reflector),
    },
  ],
  exports: [Counters],
})
export class RateLimitsModule {}

/** The limits by account. Imported behind the access guard's module, which finds out whose request it is. */
@Module({
  providers: [
    {
      provide: APP_GUARD,
      inject: [CONFIG, Counters, Reflector],
      useFactory: (config: Config, counters: Counters, reflector: Reflector) =>
        new RateLimitGuard(userLimits(config), counters, reflector),
    },
  ],
})
export class UserRateLimitsModule {}
