/**
 * Every error that the API answers with, in one place: code → HTTP status and the sentence that never changes.
 * The README documents the same table, and a test holds the two together.
 */
export const ERROR_REGISTER = {
  VALIDATION_FAILED: { status: 400, title: 'The request is not as documented' },
  MALFORMED_REQUEST: { status: 400, title: 'The request could not be read' },
  UNAUTHENTICATED: { status: 401, title: 'Authentication is missing or no longer valid' },
  INVALID_CREDENTIALS: { status: 401, title: 'E-mail or password is wrong' },
  INVALID_REFRESH_TOKEN: { status: 401, title: 'The refresh token is not valid any more' },
  INVALID_INTERNAL_KEY: { status: 401, title: 'The internal API key is missing or wrong' },
  CURRENT_PASSWORD_WRONG: { status: 403, title: 'The current password is wrong' },
  FORBIDDEN: { status: 403, title: 'This account may not do that' },
  SCOPE_MISSING: { status: 403, title: 'The API key does not hold the scope that this needs' },
  LOGIN_REQUIRED: { status: 403, title: 'This needs a login: an API key may not do it' },
  ACCOUNT_SUSPENDED: { status: 403, title: 'This account is suspended' },
  INVALID_SECRET: { status: 403, title: 'No open tunnel answers to that port and secret' },
  NOT_FOUND: { status: 404, title: 'There is nothing here' },
  SERVER_UNKNOWN: { status: 404, title: 'The bore-server is not registered' },
  METHOD_NOT_ALLOWED: { status: 405, title: 'The method is not allowed here' },
  REQUEST_TIMEOUT: { status: 408, title: 'The request took too long to arrive' },
  EMAIL_TAKEN: { status: 409, title: 'An account with this e-mail exists' },
  NAME_TAKEN: { status: 409, title: 'You have an open tunnel of this name' },
  PORT_TAKEN: { status: 409, title: 'The port is taken' },
  PORT_RANGE_TAKEN: { status: 409, title: 'Another server of this name has ports of the range' },
  SERVER_EXISTS: { status: 409, title: 'A bore-server of this id exists' },
  SERVER_IN_USE: { status: 409, title: 'The bore-server is running or has open tunnels' },
  SERVER_SUPERSEDED: { status: 409, title: 'Another process has registered under this server id' },
  API_KEY_LIMIT: { status: 409, title: 'The account has as many API keys as it may have' },
  IDEMPOTENCY_KEY_IN_USE: { status: 409, title: 'The first request under this Idempotency-Key is still running' },
  IDEMPOTENCY_ANSWER_LOST: { status: 409, title: 'What was kept under this Idempotency-Key cannot be read any more' },
  TUNNEL_CLOSED: { status: 409, title: 'The tunnel is closed' },
  OWN_ACCOUNT: { status: 409, title: 'Administrators neither demote nor suspend themselves' },
  PRECONDITION_FAILED: { status: 412, title: 'It has changed since the version that If-Match names' },
  PAYLOAD_TOO_LARGE: { status: 413, title: 'The request body is too large' },
  UNSUPPORTED_MEDIA_TYPE: { status: 415, title: 'The request body must be application/json' },
  PORT_OUT_OF_RANGE: { status: 422, title: 'No online server offers this port' },
  PORT_REQUIRED: { status: 422, title: 'Too many tunnels to search: the port must be named' },
  IDEMPOTENCY_KEY_REUSED: { status: 422, title: 'This Idempotency-Key was used for another request' },
  QUOTA_EXCEEDED: { status: 429, title: 'The plan’s number of open tunnels is reached' },
  TOO_MANY_STREAMS: { status: 429, title: 'Too many event streams of this account are open' },
  TOO_MANY_REQUESTS: { status: 429, title: 'Too many requests' },
  INTERNAL_ERROR: { status: 500, title: 'Something failed on our side' },
  NO_CAPACITY: { status: 503, title: 'All bore-servers are full or away' },
  UNAVAILABLE: { status: 503, title: 'The service is not available right now' },
} as const satisfies Record<string, { status: number; title: string }>;

/** A code of the register. */
export type ErrorCode = keyof typeof ERROR_REGISTER;

/** What a {@link PlatformError} may tell beyond its code. */
export interface ErrorDetails {
  /** A sentence about this occurrence; safe to show to the caller. */
  readonly detail?: string;
  /** Which parts of the request are wrong. */
  readonly errors?: readonly { readonly path: string; readonly message: string }[];
  /** Seconds after which the same request may succeed; also sent as `Retry-After`. */
  readonly retryAfter?: number;
}

/** An expected refusal: answered as problem+json under its code, not logged as a failure. */
export class PlatformError extends Error {
  override readonly name = 'PlatformError';

  constructor(
    readonly code: ErrorCode,
    readonly details: ErrorDetails = {},
  ) {
    super(details.detail ?? ERROR_REGISTER[code].title);
  }
}
