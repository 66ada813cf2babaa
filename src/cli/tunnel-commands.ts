import { type Account, isCode } from './account.js';
import { Nothing, type Tunnel, TunnelPage } from './api-answers.js';
import { Failure } from './failure.js';
import { LIST_PAGE_TUNNELS, LIST_PAGES_MAX } from './limits.js';
import { print, printable } from './terminal.js';

const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;

/** `borectl ls`: the user's open tunnels. */
export async function listTunnels(account: Account, { json }: { json: boolean }): Promise<void> {
  const tunnels = await openTunnels(account);
  if (json) return print(JSON.stringify(tunnels));
  if (tunnels.length === 0) return print('No open tunnels.');
  const rows = tunnels.map(({ id, name, publicAddress, state, localPort, expiresAt }) => [
    name ?? '-',
    publicAddress,
    state,
    String(localPort ?? '-'),
    expiresAt ?? 'never',
    id,
  ]);
  printTable([['NAME', 'PUBLIC ADDRESS', 'STATE', 'LOCAL PORT', 'EXPIRES', 'ID'], ...rows]);
}

/** `borectl rm`: closes a tunnel, named by its id or its name. */
export async function removeTunnel(account: Account, idOrName: string): Promise<void> {
  const id = UUID.test(idOrName) ? idOrName : undefined;
  if (id === undefined || !(await closeTunnel(account, id))) {
    // a name may look like an id
    const named = (await openTunnels(account)).find(({ name }) => name === idOrName);
    if (!named || !(await closeTunnel(account, named.id))) throw new Failure(`There is no open tunnel ${idOrName}.`);
  }
  print(`Closed ${idOrName}.`);
}

/** Closes a tunnel by its id; false when there is none. */
export async function closeTunnel(account: Account, id: string): Promise<boolean> {
  try {
    await account.call(Nothing, { method: 'DELETE', path: `tunnels/${id}` });
    return true;
  } catch (error) {
    if (isCode(error, 'NOT_FOUND')) return false;
    throw error;
  }
}

async function openTunnels(account: Account): Promise<Tunnel[]> {
  const tunnels: Tunnel[] = [];
  let cursor = '';
  for (let pages = 0; pages < LIST_PAGES_MAX; pages++) {
    const path = `tunnels?limit=${LIST_PAGE_TUNNELS}${cursor && `&cursor=${encodeURIComponent(cursor)}`}`;
    const page: TunnelPage = await account.call(TunnelPage, { method: 'GET', path });
    tunnels.push(...page.items);
    if (page.nextCursor === null) return tunnels;
    cursor = page.nextCursor;
  }
  throw new Failure('The list of tunnels does not end.');
}

function printTable(rows: readonly string[][]): void {
  const clean = rows.map((row) => row.map(printable));
  const widths = (clean[0] ?? []).map((_, column) => Math.max(...clean.map((row) => row[column]?.length ?? 0)));
  for (const row of clean)
    print(
      row
        .map((cell, column) => cell.padEnd(widths[column] ?? 0))
        .join('  ')
        .trimEnd(),
    );
}
