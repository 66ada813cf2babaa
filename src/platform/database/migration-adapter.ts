import { PrismaPg } from '@prisma/adapter-pg';
import { ColumnTypeEnum } from '@prisma/driver-adapter-utils';

/** What the engine selects of PostgreSQL's internal type "char", and under which name it comes back. */
const CHAR_COLUMNS = [
  {
    expression: 'constr.contype AS constraint_type',
    cast: 'constr.contype::text AS constraint_type',
    name: 'constraint_type',
  },
  { expression: 'con.confdeltype,', cast: 'con.confdeltype::text AS confdeltype,', name: 'confdeltype' },
  { expression: 'con.confupdtype,', cast: 'con.confupdtype::text AS confupdtype,', name: 'confupdtype' },
];

/**
 * `PrismaPg` as the schema engine needs it. As it comes (7.10), it cannot run every migration nor describe every
 * database:
 * - a script is cut at each semicolon, also inside a function's body;
 * - the internal type "char" of pg_constraint is refused.
 */
export class MigrationAdapter extends PrismaPg {
  override async connect() {
    const adapter = await super.connect();
    const queryRaw = adapter.queryRaw.bind(adapter);
    // without arguments a statement goes by the simple query protocol, which takes a whole script
    adapter.executeScript = async (script) => void (await adapter.executeRaw({ sql: script, args: [], argTypes: [] }));
    adapter.queryRaw = async (query) => {
      const present = CHAR_COLUMNS.filter(({ expression }) => query.sql.includes(expression));
      const sql = present.reduce((text, { expression, cast }) => text.replace(expression, cast), query.sql);
      const result = await queryRaw({ ...query, sql });
      const columnTypes = result.columnTypes.map((type, i) =>
        present.some(({ name }) => name === result.columnNames[i]) ? ColumnTypeEnum.Character : type,
      );
      return { ...result, columnTypes };
    };
    return adapter;
  }
}
