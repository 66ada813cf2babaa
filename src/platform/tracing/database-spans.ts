import { PrismaPg } from '@prisma/adapter-pg';
import type { SqlQueryable } from '@prisma/driver-adapter-utils';
import type pg from 'pg';

import { inStep, isTracing, type SpanDescription, SpanKind } from '../../tracing/spans.js';

type Options = ConstructorParameters<typeof PrismaPg>[1];
type Connected = Awaited<ReturnType<PrismaPg['connect']>>;
type Server = Pick<pg.PoolConfig, 'host' | 'port'>;

/** Prisma's way to a PostgreSQL; while tracing is on, with a span for each statement that a request or a job sends. */
export function newDatabaseAdapter(pool: pg.Pool, server: Server, options: Options): PrismaPg {
  return isTracing() ? new TracedPg(pool, server, options) : new PrismaPg(pool, options);
}

class TracedPg extends PrismaPg {
  constructor(
    pool: pg.Pool,
    private readonly server: Server,
    options: Options,
  ) {
    super(pool, options);
  }

  override async connect(): Promise<Connected> {
    const adapter = await super.connect();
    traceStatements(adapter, this.server);
    const startTransaction = adapter.startTransaction.bind(adapter);
    adapter.startTransaction = async (isolation) => {
      const transaction = await inStep(
        () => describe('BEGIN', this.server),
        () => startTransaction(isolation),
      );
      traceStatements(transaction, this.server);
      return transaction;
    };
    return adapter;
  }
}

/** What waits for a connection of the pool counts as time of the statement. */
function traceStatements(queryable: Pick<SqlQueryable, 'queryRaw' | 'executeRaw'>, server: Server): void {
  const queryRaw = queryable.queryRaw.bind(queryable);
  const executeRaw = queryable.executeRaw.bind(queryable);
  const inStatement = <T>(sql: string, work: () => Promise<T>): Promise<T> => inStep(() => describe(sql, server), work);
  queryable.queryRaw = (query) => inStatement(query.sql, () => queryRaw(query));
  queryable.executeRaw = (query) => inStatement(query.sql, () => executeRaw(query));
}

/** The table or function that a statement begins with: enough to know it by. The text itself is left out. */
const TABLE = /\b(?:FROM|INTO|UPDATE)\s+(?:ONLY\s+)?(?:"public"\.)?"?([a-z_][a-z0-9_]*)/i;
const FUNCTION = /\bSELECT\s+([a-z_][a-z0-9_]*)\s*\(/i;

function describe(sql: string, server: Server): SpanDescription {
  const operation = /[a-z]+/i.exec(sql)?.[0].toUpperCase() ?? 'SQL';
  const target = (TABLE.exec(sql) ?? FUNCTION.exec(sql))?.[1];
  const name = target === undefined ? operation : `${operation} ${target}`;
  return {
    name,
    kind: SpanKind.CLIENT,
    attributes: {
      'db.system.name': 'postgresql',
      'db.operation.name': operation,
      'db.query.summary': name,
      ...(server.host !== undefined && { 'server.address': server.host }),
      ...(server.port !== undefined && { 'server.port': server.port }),
    },
  };
}
