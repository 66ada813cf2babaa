import { randomUUID } from 'node:crypto';
import { EventEmitter } from 'node:events';

import { Inject, Injectable } from '@nestjs/common';
import type { Logger } from 'pino';

import { CONFIG, type Config } from '../platform/config/config.js';
import { LOGGER } from '../platform/logging/logger.js';
import { messageFor, type NotificationTarget, targetsOf } from './notification-target.js';
import { NotificationsRepository } from './notifications.repository.js';
import { post, type Posted } from './outgoing-post.js';

/** An attempt takes 5 s at most (outgoing-post.ts); the rest is for the statements around it. Then its backend is gone. */
const LEASE_SECONDS = 15;
/** Seconds before each next attempt: eight attempts in an hour, the last when a receiver has long been seen to. */
const RETRY_SECONDS = [10, 30, 60, 180, 480, 900, 1_800];
/** Deliveries of one job: so that one target with much to be told does not keep a worker for ever. */
const DELIVERIES_PER_JOB_MAX = 100;

/** What came of an attempt; `given_up`: there will be none any more. */
export const DELIVERY_OUTCOMES = ['sent', 'failed', 'given_up'] as const;
export type DeliveryOutcome = (typeof DELIVERY_OUTCOMES)[number];

/** Carries notifications to their targets: to each one after the other, over all backends. */
@Injectable()
export class NotificationCourier {
  /** Tells of each attempt of this process, and of each delivery that it gives up without one. */
  readonly attempts = new EventEmitter<{ made: [NotificationTarget['type'], DeliveryOutcome] }>();
  readonly targets: readonly NotificationTarget[];
  private readonly underWay = new Set<Promise<unknown>>();
  private stopping = false;

  constructor(
    @Inject(CONFIG) private readonly config: Config,
    @Inject(LOGGER) private readonly logger: Logger,
    private readonly notifications: NotificationsRepository,
  ) {
    this.targets = targetsOf(config);
  }

  /**
   * Sends a target what is due, until nothing is or an attempt fails: whoever does not take one message now will not take the
   * next. Does nothing while another backend sends to it.
   */
  async deliverTo(targetId: string): Promise<void> {
    const target = this.targets.find(({ id }) => id === targetId);
    for (let i = 0; target && i < DELIVERIES_PER_JOB_MAX && !this.stopping; i++) {
      const attempt = this.attempt(target);
      this.underWay.add(attempt);
      try {
        if (!(await attempt)) return;
      } finally {
        this.underWay.delete(attempt);
      }
    }
  }

  /** Gives up what could not be sent for a day, and says so; what is for a target that is no longer set, too. */
  async giveUpOld(): Promise<void> {
    for (const { target, deliveries } of await this.notifications.giveUpOld()) {
      this.logger.warn({ target, deliveries }, 'notifications given up: nobody sent them for a day');
      const known = this.targets.find(({ id }) => id === target);
      for (let i = 0; known && i < deliveries; i++) this.attempts.emit('made', known.type, 'given_up');
    }
  }

  /** Begins nothing more, and waits for what is under way: cut off, it would be sent once more by another backend. */
  async stop(): Promise<void> {
    this.stopping = true;
    await Promise.allSettled(this.underWay);
  }

  /** One delivery; whether to go on with the next. */
  private async attempt(target: NotificationTarget): Promise<boolean> {
    const claimId = randomUUID();
    const delivery = await this.notifications.claim(target.id, claimId, LEASE_SECONDS);
    if (!delivery) return false;
    const message = messageFor(target, delivery, this.config.WEBHOOK_SECRET, new Date());
    const posted = await post(target.url, message, this.config.WEBHOOK_ALLOW_INTERNAL);
    const outcome = await this.book(claimId, delivery.attempts, posted);
    // somebody else has it: they count it
    if (!outcome) return false;
    this.attempts.emit('made', target.type, outcome);
    if (!posted.sent) {
      const { id, kind, attempts } = delivery;
      const facts = { notification: id, kind, target: target.id, attempts, failure: posted.failure };
      this.logger.warn(facts, outcome === 'given_up' ? 'notification given up' : 'notification not delivered yet');
    }
    return posted.sent;
  }

  private async book(claimId: string, attempts: number, posted: Posted): Promise<DeliveryOutcome | null> {
    if (posted.sent) return (await this.notifications.finish(claimId, 'sent', null)) ? 'sent' : null;
    const delay = RETRY_SECONDS[attempts - 1];
    if (delay === undefined || posted.forGood) {
      return (await this.notifications.finish(claimId, 'given_up', posted.failure)) ? 'given_up' : null;
    }
    const seconds = Math.max(delay, posted.retryAfterSeconds ?? 0);
    return (await this.notifications.retry(claimId, seconds, posted.failure)) ? 'failed' : null;
  }
}
