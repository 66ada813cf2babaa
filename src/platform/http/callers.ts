import type { ApiKeyScope } from './api-key-scope.js';
import type { Caller } from './route-metadata.js';

/**
 * Who is calling, for what is no route or goes on after its route has answered: event streams. What knows logins and keys is
 * in `auth`, which provides this.
 */
export abstract class Callers {
  /**
   * The caller behind an access token, or an API key that holds `scope`.
   * @throws PlatformError UNAUTHENTICATED, SCOPE_MISSING
   */
  abstract identify(token: string, scope: ApiKeyScope): Promise<Caller>;

  /** Those whose login or key still counts, of an account that is not suspended. */
  abstract stillValid(callers: readonly Caller[]): Promise<ReadonlySet<Caller>>;
}
