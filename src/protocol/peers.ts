/**
 * bore-servers behind one public name: what they tell the control plane of themselves, and it tells them of each other
 * (plane-api.ts carries it). What they then say to each other: peer-link.ts.
 */
import { z } from 'zod';

/** A port that something listens on. */
const Port = z.int().min(1).max(65_535);

/** Where other bore-servers reach the peer port of one: a host name or an IP address. */
export const PeerAddress = z.strictObject({ host: z.string().regex(/^[a-zA-Z0-9.:-]{1,253}$/), port: Port });
export type PeerAddress = z.infer<typeof PeerAddress>;

/** Another bore-server of the same public name. Its public ports, both inclusive, are its own among them: they name it. */
export const Peer = z.object({
  serverId: z.string().max(63),
  host: z.string(),
  port: Port,
  portRange: z.object({ min: Port, max: Port }),
});
export type Peer = z.infer<typeof Peer>;

/** Bore-servers of one public name: more than one name ever needs. ~200 bytes each. */
export const PEERS_MAX = 500;

/** The other bore-servers of a public name; told again when its version has changed. */
export const PeerDirectory = z.object({ version: z.string().min(1).max(64), peers: z.array(Peer).max(PEERS_MAX) });
export type PeerDirectory = z.infer<typeof PeerDirectory>;
