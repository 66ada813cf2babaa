import { OptionsError } from './options.js';

/**
 * The port that was opened.
 * @throws OptionsError when the port is taken or not ours to take
 */
export async function listening(port: Promise<number>, wanted: number): Promise<number> {
  try {
    return await port;
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? error.code : undefined;
    if (code === 'EADDRINUSE') throw new OptionsError(`port ${wanted} is taken by another process`);
    if (code === 'EACCES') throw new OptionsError(`port ${wanted} may not be opened by this user`);
    throw error;
  }
}
