import { createInterface } from 'node:readline';
import { Writable } from 'node:stream';

import { Failure } from './failure.js';
import { PASSWORD_BYTES_MAX } from './limits.js';

/**
 * The password: from `BORE_PASSWORD`, from the terminal without echo, or one line of a pipe. Never from the command
 * line, which others can see.
 * @param repeat ask for it a second time on a terminal, where a slip of the finger cannot be seen
 */
export async function readPassword(environment: NodeJS.ProcessEnv, { repeat }: { repeat: boolean }): Promise<string> {
  const given = environment['BORE_PASSWORD'];
  if (given) return given;
  if (!process.stdin.isTTY) return readLine();
  const password = await ask('Password: ');
  if (repeat && (await ask('The same again: ')) !== password) throw new Failure('These are two different passwords.');
  return checked(password);
}

async function readLine(): Promise<string> {
  let bytes = Buffer.alloc(0);
  for await (const chunk of process.stdin) {
    bytes = Buffer.concat([bytes, Buffer.from(chunk)]);
    if (bytes.includes('\n') || bytes.length > PASSWORD_BYTES_MAX) break;
  }
  const [line = ''] = bytes.toString().split('\n', 1);
  if (line.length > PASSWORD_BYTES_MAX) throw new Failure('What came from stdin is too long for a password.');
  return checked(line.replace(/\r$/, ''));
}

async function ask(question: string): Promise<string> {
  // readline echoes what is typed to its output: this one goes nowhere
  const output = new Writable({ write: (_chunk, _encoding, done) => done() });
  const lines = createInterface({ input: process.stdin, output, terminal: true, historySize: 0 });
  process.stderr.write(question);
  try {
    return await new Promise<string>((resolve, reject) => {
      lines.once('line', resolve);
      lines.once('SIGINT', () => reject(new Failure('Interrupted.', 130)));
      lines.once('close', () => resolve(''));
    });
  } finally {
    lines.close();
    process.stderr.write('\n');
  }
}

function checked(password: string): string {
  if (password === '') throw new Failure('No password was given: type it, pipe it in, or set BORE_PASSWORD.');
  return password;
}
