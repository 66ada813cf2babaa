import type { AlterTableCmd, AlterTableType, Node, RangeVar } from 'libpg-query';
import { loadModule, parse } from 'libpg-query';

/** A statement that takes away what a backend of the release before may use. */
export interface Contraction {
  /** From its first word to its end, on one line. */
  readonly statement: string;
  readonly what: string;
}

/** The comment before a statement that is meant to contract, with the reason: nothing of the last release uses it any more. */
const ALLOWED = /--\s*contracts:\s*\S/;

/** What backends that are one release behind may fail on, by what ALTER TABLE calls it. */
const CONTRACTING: Partial<Record<AlterTableType, string>> = {
  AT_DropColumn: 'drops a column',
  AT_SetNotNull: 'sets NOT NULL',
  AT_AlterColumnType: 'changes a type',
  AT_AddConstraint: 'adds a constraint',
  AT_DropConstraint: 'drops a constraint',
  AT_DropExpression: 'drops an expression',
  AT_DropIdentity: 'drops an identity',
  AT_EnableRowSecurity: 'hides rows',
};

/**
 * The statements of migrations, oldest first, that contract what was there before all of them. A table that one of
 * them creates is nobody's yet. What functions do inside is not looked at: the previous release is run for that.
 */
export async function contractions(migrations: readonly string[]): Promise<Contraction[]> {
  await loadModule();
  const own = new Set<string>();
  const found: Contraction[] = [];
  for (const sql of migrations) {
    const bytes = Buffer.from(sql);
    let next = 0;
    for (const { stmt, stmt_location: start = 0, stmt_len: length } of (await parse(sql)).stmts ?? []) {
      if (!stmt) continue;
      if ('CreateStmt' in stmt) own.add(nameOf(stmt.CreateStmt.relation));
      const end = length === undefined ? bytes.length : start + length;
      // with the comments before it, which belong to no statement for the parser
      const text = bytes.subarray(next, end).toString().replace(/^;/, '');
      next = end;
      if (ALLOWED.test(text)) continue;
      const statement = text
        .replaceAll(/^\s*--.*$/gm, '')
        .replaceAll(/\s+/g, ' ')
        .trim();
      for (const what of contracting(stmt, own)) found.push({ statement, what });
    }
  }
  return found;
}

function contracting(stmt: Node, own: ReadonlySet<string>): string[] {
  if ('AlterTableStmt' in stmt) {
    const { relation, cmds = [] } = stmt.AlterTableStmt;
    if (own.has(nameOf(relation))) return [];
    return cmds.flatMap((each) => ('AlterTableCmd' in each ? (ofCommand(each.AlterTableCmd) ?? []) : []));
  }
  if ('IndexStmt' in stmt) {
    const { unique, relation } = stmt.IndexStmt;
    return unique && !own.has(nameOf(relation)) ? ['adds a unique index'] : [];
  }
  // a new trigger or function under the old name is dropped first, too: its comment says that it is
  if ('DropStmt' in stmt) return [`drops ${stmt.DropStmt.removeType?.replace('OBJECT_', '').toLowerCase()}`];
  if ('RenameStmt' in stmt || 'AlterObjectSchemaStmt' in stmt) return ['renames'];
  if ('AlterEnumStmt' in stmt) return stmt.AlterEnumStmt.oldVal === undefined ? [] : ['renames'];
  if ('TruncateStmt' in stmt) return ['empties a table'];
  if ('GrantStmt' in stmt) return stmt.GrantStmt.is_grant ? [] : ['takes rights away'];
  if ('DoStmt' in stmt) return ['cannot be read: DO'];
  return [];
}

function ofCommand({ subtype, def }: AlterTableCmd): string | undefined {
  if (subtype === undefined) return undefined;
  if (subtype === 'AT_ColumnDefault') return def === undefined ? 'drops a default' : undefined;
  if (subtype !== 'AT_AddColumn') return CONTRACTING[subtype];
  const constraints = def && 'ColumnDef' in def ? (def.ColumnDef.constraints ?? []) : [];
  const kinds = new Set(constraints.map((each) => ('Constraint' in each ? each.Constraint.contype : undefined)));
  const filled = kinds.has('CONSTR_DEFAULT') || kinds.has('CONSTR_IDENTITY') || kinds.has('CONSTR_GENERATED');
  return kinds.has('CONSTR_NOTNULL') && !filled ? 'adds a column that must be given' : undefined;
}

function nameOf(relation: RangeVar | undefined): string {
  return relation?.relname ?? '';
}
