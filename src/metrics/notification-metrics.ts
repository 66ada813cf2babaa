import { Injectable } from '@nestjs/common';
import { InjectMetric, makeCounterProvider } from '@willsoto/nestjs-prometheus';
import type { Counter } from 'prom-client';

import { DELIVERY_OUTCOMES, NotificationCourier } from '../notifications/notification-courier.js';

const NOTIFICATIONS = 'bore_notifications_total';

/** Counts what came of each attempt of this process to send a notification, and what it gave up without one. */
@Injectable()
export class NotificationMetrics {
  constructor(@InjectMetric(NOTIFICATIONS) total: Counter, courier: NotificationCourier) {
    // there from the start, or the first one would not show as a change
    for (const { type: target } of courier.targets) {
      for (const outcome of DELIVERY_OUTCOMES) total.inc({ target, outcome }, 0);
    }
    courier.attempts.on('made', (target, outcome) => total.inc({ target, outcome }));
  }
}

export const notificationMetricProviders = [
  makeCounterProvider({
    name: NOTIFICATIONS,
    help: 'Attempts to send a notification; failed: another will follow; given_up: none will, also when there was none for a day',
    labelNames: ['target', 'outcome'],
  }),
  NotificationMetrics,
];
