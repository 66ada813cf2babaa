import { z } from 'zod';

import { Nothing, TokenPair } from '../cli/api-answers.js';
import type { ApiClient } from '../cli/api-client.js';

/** A login as the API answers it; `expiresIn` is the life of its access token, in seconds. */
export const LoginAnswer = TokenPair.extend({ expiresIn: z.int().min(1) });
export type LoginAnswer = z.infer<typeof LoginAnswer>;

/**
 * How much of an access token's life is used. The rest is longer than a request may take (REQUEST_MS) with the shortest life that
 * the platform allows, 30 s.
 */
const LIFE_USED = 0.6;

/** A user's login, for as long as the test takes. */
export class Login {
  private refreshAt = 0;
  private refreshing: Promise<void> | undefined;

  constructor(
    private readonly api: ApiClient,
    private answer: LoginAnswer,
  ) {
    this.accept(answer);
  }

  /**
   * An access token that does not end soon: the user's own and its listener's. Refresh tokens are good once, so both wait for one refresh.
   * @throws ApiRefusal, ApiUnavailable; the next call tries again
   */
  async accessToken(): Promise<string> {
    if (performance.now() >= this.refreshAt) {
      this.refreshing ??= this.refresh().finally(() => (this.refreshing = undefined));
      await this.refreshing;
    }
    return this.answer.accessToken;
  }

  async end(): Promise<void> {
    const accessToken = await this.accessToken();
    await this.api.call(Nothing, { method: 'POST', path: 'auth/logout', accessToken });
  }

  private async refresh(): Promise<void> {
    const body = { refreshToken: this.answer.refreshToken };
    this.accept(await this.api.call(LoginAnswer, { method: 'POST', path: 'auth/refresh', body }));
  }

  private accept(answer: LoginAnswer): void {
    this.answer = answer;
    this.refreshAt = performance.now() + answer.expiresIn * 1_000 * LIFE_USED;
  }
}
