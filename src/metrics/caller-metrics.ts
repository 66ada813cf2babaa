import { Injectable } from '@nestjs/common';
import { InjectMetric, makeCounterProvider } from '@willsoto/nestjs-prometheus';
import type { Counter } from 'prom-client';

import { AuthService, LOGIN_OUTCOMES } from '../auth/auth.service.js';
import { PasswordHasher } from '../auth/password-hasher.js';
import { Counters, LIMIT_NAMES } from '../platform/rate-limits/counters.js';
import { scrapeGauge } from './scrape-gauge.js';

const LIMITED = 'bore_rate_limited_total';
const LOGINS = 'bore_logins_total';

/** Who comes in, and who is kept out; in this process. */
@Injectable()
export class CallerMetrics {
  constructor(
    @InjectMetric(LIMITED) limited: Counter,
    @InjectMetric(LOGINS) logins: Counter,
    counters: Counters,
    auth: AuthService,
    passwords: PasswordHasher,
  ) {
    // there from the start, or the first one would not show as a change
    for (const limit of LIMIT_NAMES) limited.inc({ limit }, 0);
    for (const outcome of LOGIN_OUTCOMES) logins.inc({ outcome }, 0);
    counters.refusals.on('refused', (limit) => limited.inc({ limit }));
    auth.logins.on('attempted', (outcome) => logins.inc({ outcome }));
    scrapeGauge(
      { name: 'bore_password_hashes', help: 'Password hashes under way, and waiting', labelNames: ['state'] },
      (gauge) => {
        gauge.set({ state: 'running' }, passwords.load.running);
        gauge.set({ state: 'waiting' }, passwords.load.waiting);
      },
    );
  }
}

export const callerMetricProviders = [
  makeCounterProvider({ name: LIMITED, help: 'Requests refused because a limit was reached', labelNames: ['limit'] }),
  makeCounterProvider({ name: LOGINS, help: 'Attempts to log in', labelNames: ['outcome'] }),
  CallerMetrics,
];
