import type { Logger } from 'pino';

import { randomUuid } from '../protocol/challenge.js';
import type { Grant } from '../protocol/plane-api.js';
import type { Applicant, Authorizer } from './authorizer.js';
import { type BackendClient, PlaneRefusal } from './backend-client.js';
import { FailedSearches } from './failed-searches.js';
import { Refusal } from './handshake.js';
import { AUTHORIZE_MS } from './limits.js';

/** Asks a backend who a client is. */
export class BackendAuthorizer implements Authorizer {
  readonly allowsTakeover = true;
  private readonly failedSearches = new FailedSearches();

  /** @param onRefused hears of refusals that concern the server itself: it must register again, or stop */
  constructor(
    private readonly backend: BackendClient,
    private readonly identity: { serverId: string; instanceId: string },
    private readonly range: { min: number; max: number },
    private readonly logger: Logger,
    private readonly onRefused: (refusal: PlaneRefusal) => void,
  ) {}

  async authorize({ port, challenge, tag, address }: Applicant): Promise<Grant> {
    if (port !== 0 && (port < this.range.min || port > this.range.max)) {
      throw new Refusal('client port number not in allowed range');
    }
    if (port === 0 && this.failedSearches.isBlocked(address)) {
      throw new Refusal('too many failed attempts, try again in a minute or name the port');
    }
    const { serverId, instanceId } = this.identity;
    try {
      return await this.backend.authorize(
        { serverId, instanceId, port, challenge, tag, sessionId: randomUuid(), clientAddress: address },
        AUTHORIZE_MS,
      );
    } catch (cause) {
      if (cause instanceof PlaneRefusal && cause.code === 'INVALID_SECRET') {
        if (port === 0) this.failedSearches.add(address);
        throw new Refusal('invalid secret', { cause });
      }
      if (cause instanceof PlaneRefusal) this.onRefused(cause);
      else this.logger.warn({ err: cause }, 'a client could not be authorised');
      throw new Refusal('the service cannot authorise new tunnels right now, try again', { cause });
    }
  }
}
