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

/** The client has proved that a tunnel is its own, but it is one of another server of our public name. */
export class TunnelElsewhere extends Error {
  override readonly name = 'TunnelElsewhere';

  /** @param port its public port */
  constructor(readonly port: number) {
    super(`the tunnel at port ${port} is another server's`);
  }
}

/** Decides who may carry a tunnel. */
export interface Authorizer {
  /** Ports that another client of the same authorizer may take over: only where a tunnel has one owner. */
  readonly allowsTakeover: boolean;
  /** @throws Refusal with what the client is told; TunnelElsewhere only for port 0 */
  authorize(applicant: Applicant): Promise<Grant>;
}
