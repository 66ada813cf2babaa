import { Injectable } from '@nestjs/common';
import { hash, verify } from '@node-rs/argon2';
import pLimit from 'p-limit';

import { PlatformError } from '../platform/errors/error-register.js';
import { normalForm } from './password-policy.js';

/** argon2id with 19 MiB and 2 passes: OWASP ASVS 5.0 appendix C. About 20 ms of CPU. */
const ARGON2 = { memoryCost: 19_456, timeCost: 2, parallelism: 1 };

/** Hashes at once: half of libuv's four threads, so that files and DNS are not kept waiting. */
const CONCURRENCY = 2;

/** Hashes waiting: ~0.6 s of work. More would only time out at the caller; they hear 503 at once. */
const WAITING_MAX = 60;

/** Hashes and checks passwords, a bounded number at a time. */
@Injectable()
export class PasswordHasher {
  private readonly queue = pLimit(CONCURRENCY);

  /** Of no password: what an unknown account is checked against, so that it takes as long as a known one. */
  private readonly decoy = hash('', ARGON2);

  /** Hashes under way, and waiting. */
  get load(): { readonly running: number; readonly waiting: number } {
    return { running: this.queue.activeCount, waiting: this.queue.pendingCount };
  }

  /** @throws PlatformError UNAVAILABLE when too many wait already. */
  hash(password: string): Promise<string> {
    return this.enqueue(() => hash(normalForm(password), ARGON2));
  }

  /**
   * Whether the password is the one of `passwordHash`; with `null` (no such account), false after the same work.
   * @throws PlatformError UNAVAILABLE when too many wait already.
   */
  verify(passwordHash: string | null, password: string): Promise<boolean> {
    return this.enqueue(
      async () => (await verify(passwordHash ?? (await this.decoy), normalForm(password))) && passwordHash !== null,
    );
  }

  private enqueue<T>(work: () => Promise<T>): Promise<T> {
    if (this.queue.pendingCount >= WAITING_MAX) throw new PlatformError('UNAVAILABLE', { retryAfter: 1 });
    return this.queue(work);
  }
}
