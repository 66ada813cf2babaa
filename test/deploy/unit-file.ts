import { readFile, readdir } from 'node:fs/promises';
import path from 'node:path';

import { ROOT } from './packaged.js';

const FOLDER = path.join(ROOT, 'deploy/systemd');

/** A unit of systemd that we ship: its settings in order, a key may be there several times. */
export class UnitFile {
  private constructor(
    readonly file: string,
    private readonly settings: readonly (readonly [key: string, value: string])[],
  ) {}

  static async read(name: string): Promise<UnitFile> {
    const file = path.join(FOLDER, name);
    const text = (await readFile(file, 'utf8')).replaceAll('\\\n', ' ');
    return new UnitFile(
      file,
      [...text.matchAll(/^(\w+)=(.*)$/gm)].map(([, key = '', value = '']) => [key, value]),
    );
  }

  /** @throws Error when it has none, or several */
  one(key: string): string {
    const [value, ...more] = this.all(key);
    if (value === undefined || more.length > 0) throw new Error(`${this.file} must have one ${key}=`);
    return value;
  }

  all(key: string): string[] {
    return this.settings.flatMap(([name, value]) => (name === key ? [value] : []));
  }
}

/** File names of all units. */
export async function unitNames(): Promise<string[]> {
  return (await readdir(FOLDER)).filter((name) => name.endsWith('.service'));
}
