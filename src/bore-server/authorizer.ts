import type { Grant } from '../protocol/plane-api.js';

/** A client that wants to carry a tunnel. */
export interface Applicant {
  /** The public port that it asked for; 0: whichever. */
  readonly port: number;
  readonly challenge: string;
  readonly tag: string;
  /** Its IP address. */
  readonly address: string;
}

/** Decides who may carry a tunnel. */
export interface Authorizer {
  /** Ports that another client of the same authorizer may take over: only where a tunnel has one owner. */
  readonly allowsTakeover: boolean;
  /** @throws Refusal with what the client is told */
  authorize(applicant: Applicant): Promise<Grant>;
}
