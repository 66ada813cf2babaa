import { z } from 'zod';

import { ListenPort, ServerId } from './plane-api.js';

/**
 * A client said Hello(0), and no tunnel of this server answers: whose is it? Asked by a registered server that has a peer
 * port, of which only those answer that share its public name.
 */
export const LocateRequest = z.strictObject({
  serverId: ServerId,
  instanceId: z.guid(),
  challenge: z.guid(),
  /** The client's answer to the challenge, as sent. */
  tag: z.string().max(256),
});
export type LocateRequest = z.infer<typeof LocateRequest>;

/** The public port of the tunnel that answers: it names the server. */
export const LocateResponse = z.object({ port: ListenPort });
export type LocateResponse = z.infer<typeof LocateResponse>;
