import pLimit from 'p-limit';

import { isCode } from '../cli/account.js';
import { Nothing } from '../cli/api-answers.js';
import type { ApiClient } from '../cli/api-client.js';
import { Failure } from '../cli/failure.js';
import { LOGINS_AT_ONCE } from './limits.js';
import { Login, LoginAnswer } from './login.js';

export interface AccountsOptions {
  readonly api: ApiClient;
  readonly users: number;
  /** Before the number in their addresses. */
  readonly prefix: string;
  readonly password: string;
  /** Made by an earlier run, as a rule: logged in to first, and signed up where there is none. */
  readonly reuse: boolean;
  readonly onLogin: (count: number) => void;
  readonly signal: AbortSignal;
}

/**
 * Signs the users up and logs them in.
 * @throws Failure with what to set when the platform's limits do not allow so many
 */
export async function logIn({
  api,
  users,
  prefix,
  password,
  reuse,
  onLogin,
  signal,
}: AccountsOptions): Promise<Login[]> {
  const logins: Login[] = [];
  const limit = pLimit(LOGINS_AT_ONCE);
  const enter = async (n: number): Promise<void> => {
    if (signal.aborted) return;
    const body = { email: `${prefix}-${n}@load-test.example`, password };
    const ask = (route: 'signup' | 'login') => api.call(LoginAnswer, { method: 'POST', path: `auth/${route}`, body });
    let known = false;
    if (reuse) {
      const found = await ask('login').catch((error: unknown) => {
        if (isCode(error, 'INVALID_CREDENTIALS')) return undefined;
        throw error;
      });
      if (found) logins.push(new Login(api, found));
      known = found !== undefined;
    }
    if (!known) {
      const { accessToken, refreshToken } = await ask('signup');
      logins.push(new Login(api, await ask('login')));
      // a sign-up is a login too, and one is enough
      await api.call(Nothing, { method: 'POST', path: 'auth/logout', body: { refreshToken }, accessToken });
    }
    onLogin(logins.length);
  };
  try {
    await Promise.all(Array.from({ length: users }, (_, i) => limit(() => enter(i + 1))));
  } catch (error) {
    limit.clearQueue();
    if (isCode(error, 'TOO_MANY_REQUESTS')) {
      throw new Failure(
        `The platform lets this address log in no more users than ${logins.length} now: for the test, start its backends with ` +
          `RATE_LIMIT_SIGNUPS_PER_HOUR and RATE_LIMIT_LOGINS_PER_MINUTE of at least ${users + 1}.`,
        1,
        { cause: error },
      );
    }
    if (isCode(error, 'EMAIL_TAKEN'))
      throw new Failure('Accounts of that prefix exist, with another LOAD_TEST_PASSWORD.', 1, { cause: error });
    throw error;
  }
  return logins;
}
