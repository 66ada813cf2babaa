import { execFileSync } from 'node:child_process';

import type { UnitFile } from './unit-file.js';

/** System calls that a unit's SystemCallFilter= lets through, by systemd's own lists. */
export function allowedCalls(unit: UnitFile): Set<string> {
  const allowed = new Set<string>();
  for (const line of unit.all('SystemCallFilter')) {
    const names = line.replace('~', '').split(' ').flatMap(expand);
    for (const name of names) {
      if (line.startsWith('~')) allowed.delete(name);
      else allowed.add(name);
    }
  }
  return allowed;
}

function expand(name: string): string[] {
  if (!name.startsWith('@')) return [name];
  const text = execFileSync('systemd-analyze', ['syscall-filter', '--no-pager', name], { encoding: 'utf8' });
  return text
    .split('\n')
    .slice(1)
    .map((line) => line.trim())
    .filter((line) => line !== '' && !line.startsWith('#'))
    .flatMap(expand);
}

/**
 * What `strace -f` has written since the last program was executed (env and setpriv come before it): calls that did not fail anyway, and
 * families of sockets.
 */
export function callsIn(trace: string): { readonly calls: Set<string>; readonly families: Set<string> } {
  const own = trace.slice(Math.max(0, trace.lastIndexOf(' execve(')));
  const lines = [...own.matchAll(/^\d+\s+(\w+)\((\w*)(.*)$/gm)];
  const succeeded = lines.filter(([, , , rest = '']) => !/= -1 E/.test(rest));
  return {
    calls: new Set(succeeded.map(([, call = '']) => call)),
    families: new Set(lines.filter(([, call]) => call === 'socket').map(([, , family = '']) => family)),
  };
}
