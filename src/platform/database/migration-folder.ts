import { readdir } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';

/** Where the project keeps its schema and migrations; the same from `src` and from `dist`. */
export const PRISMA_DIR = fileURLToPath(new URL('../../../prisma', import.meta.url));
export const MIGRATIONS_DIR = `${PRISMA_DIR}/migrations`;

/** Names of the migrations in a folder, in the order in which they apply. */
export async function migrationNames(directory: string): Promise<string[]> {
  const entries = await readdir(directory, { withFileTypes: true });
  return entries
    .filter((entry) => entry.isDirectory())
    .map(({ name }) => name)
    .sort();
}
