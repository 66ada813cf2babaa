import { Prisma } from '../platform/database/generated/client.js';
import type { UpdateTunnelRequest } from './tunnel.js';

/** What a change sets, as a list for SET. Settings get the next version when one of them is to hold something else. */
export function assignmentsOf(change: UpdateTunnelRequest): Prisma.Sql {
  const { name, labels, relocate } = change;
  const settings = settingsColumns(change);
  const assignments = [
    ...(name === undefined ? [] : [Prisma.sql`name = ${name}::text`]),
    ...(labels === undefined ? [] : [Prisma.sql`labels = ${JSON.stringify(labels)}::jsonb`]),
    ...(relocate === undefined ? [] : [Prisma.sql`relocate = ${relocate}::boolean`]),
    ...settings.map(({ column, value }) => Prisma.sql`${column} = ${value}`),
    ...settings.slice(0, 1).map(() => Prisma.sql`settings_version = settings_version + (${differs(settings)})::int`),
  ];
  return assignments.length === 0 ? Prisma.sql`name = name` : Prisma.join(assignments);
}

interface SettingsColumn {
  readonly column: Prisma.Sql;
  readonly value: Prisma.Sql;
}

/** The settings that a request names, as columns. */
function settingsColumns(change: UpdateTunnelRequest): SettingsColumn[] {
  const { maxConnections, bandwidthMbps, allowCidrs, denyCidrs, proxyProtocol, ttlSeconds } = change;
  const columns: (SettingsColumn | null)[] = [
    maxConnections === undefined
      ? null
      : { column: Prisma.sql`max_connections`, value: Prisma.sql`${maxConnections}::int` },
    bandwidthMbps === undefined
      ? null
      : { column: Prisma.sql`bandwidth_mbps`, value: Prisma.sql`${bandwidthMbps}::int` },
    allowCidrs === undefined ? null : { column: Prisma.sql`allow_cidrs`, value: Prisma.sql`${allowCidrs}::text[]` },
    denyCidrs === undefined ? null : { column: Prisma.sql`deny_cidrs`, value: Prisma.sql`${denyCidrs}::text[]` },
    proxyProtocol === undefined
      ? null
      : { column: Prisma.sql`proxy_protocol`, value: Prisma.sql`${proxyProtocol}::proxy_protocol` },
    ttlSeconds === undefined
      ? null
      : { column: Prisma.sql`expires_at`, value: Prisma.sql`now() + make_interval(secs => ${ttlSeconds}::int)` },
  ];
  return columns.filter((column) => column !== null);
}

/** Whether one of the columns holds something else than is to be set. */
function differs(columns: readonly SettingsColumn[]): Prisma.Sql {
  return Prisma.join(
    columns.map(({ column, value }) => Prisma.sql`${column} IS DISTINCT FROM ${value}`),
    ' OR ',
  );
}
