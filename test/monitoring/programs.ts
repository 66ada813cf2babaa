import { execFile, spawnSync } from 'node:child_process';

/** Answers in milliseconds; Go programs may take a moment more. */
const ASK_TIMEOUT_MS = 10_000;

/** Why these programs cannot be had here, or `undefined`. Names are those of Debian's packages. */
export function programsMissing(programs: Readonly<Record<string, string>>): string | undefined {
  const missing = Object.entries(programs).filter(
    ([program]) => spawnSync(program, ['--version'], { timeout: ASK_TIMEOUT_MS }).error !== undefined,
  );
  if (missing.length === 0) return undefined;
  const names = missing.map(([program]) => program).join(', ');
  return `not installed: ${names} (apt-get install ${[...new Set(missing.map(([, name]) => name))].join(' ')})`;
}

/** Why rules cannot be checked here, or `undefined`. */
export const promtoolMissing = (): string | undefined => programsMissing({ promtool: 'prometheus' });

/** Fails with everything that promtool says. */
export function runPromtool(args: readonly string[]): Promise<string> {
  return new Promise((resolve, reject) => {
    execFile('promtool', args, (error, stdout, stderr) => {
      if (error) reject(new Error(`promtool ${args[0]} ${args[1]}:\n${stdout}${stderr}`));
      else resolve(stdout);
    });
  });
}
