import type { z } from 'zod';

import { TokenPair } from './api-answers.js';
import { type ApiClient, ApiRefusal } from './api-client.js';
import type { Credentials, CredentialsStore } from './credentials.js';
import { Failure } from './failure.js';

interface AccountRequest {
  readonly method: 'GET' | 'POST' | 'DELETE';
  readonly path: string;
  readonly body?: unknown;
}

/** The API as the user sees it: by an API key where there is one, else by the login that is stored. */
export class Account {
  /** Whose requests these are: a long-running `open` must not go on under the next login. */
  private userId: string | undefined;

  /** @param apiKey is used as it is, and never stored */
  constructor(
    private readonly api: ApiClient,
    private readonly store: CredentialsStore,
    private readonly apiKey?: string,
  ) {}

  /**
   * Sends a request; when the access token has expired, once more with a new one.
   * @throws Failure when nobody is logged in, ApiRefusal, ApiUnavailable
   */
  async call<T>(answer: z.ZodType<T>, request: AccountRequest): Promise<T> {
    if (this.apiKey !== undefined) return this.callByKey(answer, request, this.apiKey);
    const credentials = this.checked(await this.store.find(this.api.url));
    try {
      return await this.api.call(answer, { ...request, accessToken: credentials.accessToken });
    } catch (error) {
      if (!isCode(error, 'UNAUTHENTICATED')) throw error;
    }
    const { accessToken } = await this.refresh(credentials);
    return this.api.call(answer, { ...request, accessToken });
  }

  private async callByKey<T>(answer: z.ZodType<T>, request: AccountRequest, accessToken: string): Promise<T> {
    try {
      return await this.api.call(answer, { ...request, accessToken });
    } catch (error) {
      if (!isCode(error, 'UNAUTHENTICATED')) throw error;
      throw new Failure(`The API key in BORE_API_KEY does not work at ${this.api.url}, or not any more.`);
    }
  }

  /** Refresh tokens are good once: one process spends it, and the others find its successor in the file. */
  private async refresh(expired: Credentials): Promise<Credentials> {
    return this.checked(
      await this.store.update(this.api.url, async (found) => {
        const current = this.checked(found);
        if (current.accessToken !== expired.accessToken) return current;
        try {
          const body = { refreshToken: current.refreshToken };
          return credentialsOf(await this.api.call(TokenPair, { method: 'POST', path: 'auth/refresh', body }));
        } catch (error) {
          if (!isCode(error, 'INVALID_REFRESH_TOKEN')) throw error;
          // somebody who did not see our lock (its clock, a network home) may have been faster
          const latest = await this.store.find(this.api.url);
          if (latest && latest.refreshToken !== current.refreshToken) return latest;
          throw new Failure(`Your login at ${this.api.url} has ended: run borectl login ${current.email}`);
        }
      }),
    );
  }

  private checked(credentials: Credentials | undefined): Credentials {
    if (!credentials) throw new Failure(`You are not logged in at ${this.api.url}: run borectl login <email>`);
    this.userId ??= credentials.userId;
    if (credentials.userId !== this.userId)
      throw new Failure(`Another account has logged in at ${this.api.url} since.`);
    return credentials;
  }
}

/** What is kept of a login. */
export function credentialsOf({ accessToken, refreshToken, user }: TokenPair): Credentials {
  return { userId: user.id, email: user.email, accessToken, refreshToken };
}

/** Whether the API refused with this code of its register of errors. */
export function isCode(error: unknown, code: string): boolean {
  return error instanceof ApiRefusal && error.problem.code === code;
}
