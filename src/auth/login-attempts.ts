import { createHash } from 'node:crypto';

import { Inject, Injectable } from '@nestjs/common';

import { CONFIG, type Config } from '../platform/config/config.js';
import { type ErrorCode, PlatformError } from '../platform/errors/error-register.js';
import { limitedAddressOf } from '../platform/rate-limits/client-address.js';
import { type CounterWindow, retryAfterOf } from '../platform/rate-limits/counter-window.js';
import { Counters } from '../platform/rate-limits/counters.js';

const MINUTE = 60;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

/** An address from which the account was logged in to within this time is familiar: as long as a session lives by default. */
const FAMILIAR_SECONDS = 30 * DAY;

/** What may be wrong with the password, or would say that it is right: these answers stay counted. */
const GUESSES: ReadonlySet<ErrorCode> = new Set(['INVALID_CREDENTIALS', 'CURRENT_PASSWORD_WRONG', 'ACCOUNT_SUSPENDED']);

/**
 * Makes guessing one account's password slow, and locks nobody out of their account (OWASP ASVS 5.0, 6.1.1 and 6.3.1).
 *
 * - **From one address**, failures are limited per minute, per quarter of an hour and per day, so that each further round has a
 *   longer wait. Somebody else's guesses are not counted here.
 * - **From all addresses together** an hour has a limit too, against guessing from many. It is counted and asked for only at
 *   addresses that are not familiar to the account, so that its owner gets in where they have logged in before. A stranger
 *   who spends it keeps the owner out only from new addresses, only while it lasts, and needs several addresses for it.
 *
 * An attempt is taken before the password is looked at, so that a thousand at once are no more than one after another, and
 * given back if it was no guess. An e-mail is counted whether or not it has an account, and refused with the same answer.
 */
@Injectable()
export class LoginAttempts {
  constructor(
    @Inject(CONFIG) private readonly config: Config,
    private readonly counters: Counters,
  ) {}

  /**
   * Runs `check`, of a login or of a current password, as one attempt at the account of `email`, from the address `ip`.
   * @throws PlatformError TOO_MANY_REQUESTS before anything was done; else what `check` throws
   */
  async watch<T>(email: string, ip: string, check: () => Promise<T>): Promise<T> {
    // e-mails are of any length and nobody else's business
    const account = `{login:${createHash('sha256').update(email).digest('base64url')}}`;
    const address = limitedAddressOf(ip);
    const familiar = `${account}:familiar:${address}`;
    const own = this.windowsOf(`${account}:from:${address}`);
    const others = { key: `${account}:unfamiliar`, quota: this.config.LOGIN_FAILURES_PER_MINUTE * 20, seconds: HOUR };
    const windows = (await this.counters.isMarked(familiar)) ? own : [...own, others];

    const taken = await this.counters.take(windows);
    if (!taken.granted) {
      this.counters.refusals.emit('refused', 'account');
      throw new PlatformError('TOO_MANY_REQUESTS', { retryAfter: retryAfterOf(taken) });
    }
    try {
      const result = await check();
      await Promise.all([
        this.counters.giveBack(windows.slice(own.length)),
        this.counters.clear(own),
        this.counters.mark(familiar, FAMILIAR_SECONDS),
      ]);
      return result;
    } catch (error) {
      if (!(error instanceof PlatformError && GUESSES.has(error.code))) await this.counters.giveBack(windows);
      throw error;
    }
  }

  /** Of the default of 5: 5 a minute, 10 a quarter of an hour, 50 a day. */
  private windowsOf(key: string): CounterWindow[] {
    const failures = this.config.LOGIN_FAILURES_PER_MINUTE;
    return [
      { key: `${key}:minute`, quota: failures, seconds: MINUTE },
      { key: `${key}:quarter`, quota: failures * 2, seconds: 15 * MINUTE },
      { key: `${key}:day`, quota: failures * 10, seconds: DAY },
    ];
  }
}
