import type { Logger } from 'pino';

import { randomUuid } from '../protocol/challenge.js';
import type { Grant } from '../protocol/plane-api.js';
import { type Applicant, type Authorizer, TunnelElsewhere } from './authorizer.js';
import { type BackendClient, BackendUnavailable, PlaneRefusal } from './backend-client.js';
import type { Grants } from './grants.js';
import { Refusal, Rejection, Unanswered } from './handshake.js';
import { AUTHORIZE_MS, FAILED_SEARCHES_MAX, FAILURE_WINDOW_MS, LOCATE_MS } from './limits.js';
import { FailuresBySource, sourceOf } from './sources.js';

const CANNOT_AUTHORISE = 'the service cannot authorise new tunnels right now, try again';

/** What the authorizer knows of the server, and tells it. */
export interface AuthorizerContext {
  readonly identity: { readonly serverId: string; readonly instanceId: string };
  readonly range: { readonly min: number; readonly max: number };
  /** Whether the control plane knows this process; until then its word about us is about the process before. */
  isRegistered(): boolean;
  /** Whether other servers share our public name: a tunnel that is not ours may be theirs. */
  hasPeers(): boolean;
  /** Hears of refusals that concern the server itself: it must register again, or stop. */
  onRefused(refusal: PlaneRefusal): void;
}

/** Asks a backend who a client is, and remembers the answer for the time when there is none. */
export class BackendAuthorizer implements Authorizer {
  readonly allowsTakeover = true;
  private readonly failedSearches = new FailuresBySource(FAILED_SEARCHES_MAX, FAILURE_WINDOW_MS, FAILURE_WINDOW_MS);

  constructor(
    private readonly backend: BackendClient,
    private readonly grants: Grants,
    private readonly logger: Logger,
    private readonly context: AuthorizerContext,
  ) {}

  async authorize(applicant: Applicant): Promise<Grant> {
    const { port, address } = applicant;
    const { range } = this.context;
    const source = sourceOf(address);
    if (port !== 0 && (port < range.min || port > range.max)) {
      throw new Refusal('client port number not in allowed range');
    }
    if (port === 0 && this.failedSearches.isBlocked(source)) {
      throw new Refusal('too many failed attempts, try again in a minute or name the port');
    }
    // one session, whoever grants it: a backend's answer may be lost after it has counted
    const sessionId = randomUuid();
    try {
      const grant = await this.ask(applicant, sessionId);
      this.grants.put(grant);
      return grant;
    } catch (cause) {
      if (cause instanceof PlaneRefusal && cause.code === 'INVALID_SECRET') {
        // what the control plane has refused must not be let in when it is away
        this.grants.forgetAnswering(applicant);
        if (port === 0) await this.searchElsewhere(applicant);
        throw new Rejection('invalid secret', { cause });
      }
      if (cause instanceof PlaneRefusal) this.context.onRefused(cause);
      const kept = this.grants.authorize(applicant, sessionId);
      this.logger.warn(
        { err: cause, tunnelId: kept?.tunnelId },
        'a client could not be authorised by the control plane',
      );
      if (kept) return kept;
      throw new Unanswered(CANNOT_AUTHORISE, { cause });
    }
  }

  /**
   * Named no port, and is no client of ours: perhaps it is one of another server of our name.
   * @throws TunnelElsewhere, Refusal, Unanswered
   */
  private async searchElsewhere({ challenge, tag, address }: Applicant): Promise<void> {
    const source = sourceOf(address);
    if (!this.context.hasPeers()) return void this.failedSearches.add(source);
    const { serverId, instanceId } = this.context.identity;
    let port: number;
    try {
      ({ port } = await this.backend.locate({ serverId, instanceId, challenge, tag }, LOCATE_MS));
    } catch (cause) {
      if (!(cause instanceof PlaneRefusal)) throw new Unanswered(CANNOT_AUTHORISE, { cause });
      this.failedSearches.add(source);
      if (cause.code !== 'PORT_REQUIRED') return;
      throw new Refusal('too many tunnels to search by secret alone, name the port', { cause });
    }
    throw new TunnelElsewhere(port);
  }

  private ask({ port, challenge, tag, address }: Applicant, sessionId: string): Promise<Grant> {
    const { serverId, instanceId } = this.context.identity;
    if (!this.context.isRegistered()) throw new BackendUnavailable('not registered yet');
    return this.backend.authorize(
      { serverId, instanceId, port, challenge, tag, sessionId, clientAddress: address },
      AUTHORIZE_MS,
    );
  }
}
