import { z } from 'zod';

/** Each is a pool of its own in every backend. */
const REPLICAS_MAX = 16;
/** IPv6 addresses in brackets, as in a URL. */
const REPLICA_HOST = /^(?<host>[^\s:[\]@/]+|\[[\da-fA-F:.]+\])(?::(?<port>\d{1,5}))?$/;

/** Where replicas are; one without a port listens on the primary's. */
export const ReplicaHosts = z
  .array(
    z
      .string()
      .regex(REPLICA_HOST, 'must be host or host:port')
      .transform((text) => {
        const { host = '', port } = REPLICA_HOST.exec(text)?.groups ?? {};
        return { host: host.replaceAll(/[[\]]/g, ''), port: port === undefined ? null : Number(port) };
      })
      .refine((at) => at.port === null || (at.port >= 1 && at.port <= 65_535), 'has a port that is none'),
  )
  .max(REPLICAS_MAX);
