import { type Account, credentialsOf } from './account.js';
import { Nothing, TokenPair } from './api-answers.js';
import { type ApiClient, ApiRefusal, ApiUnavailable } from './api-client.js';
import type { CredentialsStore } from './credentials.js';
import { Failure } from './failure.js';
import { print, printable } from './terminal.js';

/** `borectl signup` and `borectl login`: an account's e-mail and password become credentials in the store. */
export async function enter(
  route: 'signup' | 'login',
  { email, password }: { email: string; password: string },
  { api, store }: { api: ApiClient; store: CredentialsStore },
): Promise<void> {
  const pair = await api.call(TokenPair, { method: 'POST', path: `auth/${route}`, body: { email, password } });
  await store.update(api.url, async () => credentialsOf(pair));
  print(`${route === 'signup' ? 'Signed up' : 'Logged in'} at ${api.url} as ${printable(pair.user.email)}.`);
}

/** `borectl logout`: ends the login at the platform, and forgets it here in any case. */
export async function logOut({
  api,
  store,
  account,
}: {
  api: ApiClient;
  store: CredentialsStore;
  account: Account;
}): Promise<void> {
  if (!(await store.find(api.url))) throw new Failure(`You are not logged in at ${api.url}.`);
  let untold: Failure | undefined;
  try {
    await account.call(Nothing, { method: 'POST', path: 'auth/logout' });
  } catch (error) {
    if (!(error instanceof Failure)) throw error;
    // otherwise the login had ended already, and that is what was wanted
    if (error instanceof ApiUnavailable || error instanceof ApiRefusal) untold = error;
  }
  await store.update(api.url, async () => undefined);
  if (untold) throw new Failure(`Forgotten here; the platform does not know yet. ${untold.message}`);
  print(`Logged out at ${api.url}.`);
}
