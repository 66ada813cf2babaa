/**
 * Fenced shell commands of a page, and what its author says of them in comments, which readers do not see:
 *
 *     <!-- not run: reason -->                            of the block that follows
 *     <!-- run: test/api/x.test.ts "text" -->             the same; that test does it, and `text` is in both
 *     <!-- run first -->                                  the same; it sets up what the others of the page use
 *     <!-- not run on this page: a, b -x: reason -->      commands that begin so
 *
 * A block without a comment is run by test/docs/commands.test.ts.
 */

/** One shell block. */
export interface ShellBlock {
  readonly page: string;
  /** Where it begins, for people. */
  readonly line: number;
  readonly text: string;
  readonly notRun: string | undefined;
  readonly runBy: readonly { readonly test: string; readonly text: string }[];
  readonly isFirst: boolean;
}

/** Shell blocks of a page, and how commands begin that are left out of them. */
export interface Page {
  readonly blocks: readonly ShellBlock[];
  readonly leftOut: readonly string[];
}

const SHELL = /^(?:sh|bash|shell|console)$/;

export function readPage(page: string, markdown: string): Page {
  const lines = markdown.split('\n');
  const blocks: ShellBlock[] = [];
  /** Comments since the last line that was text. */
  let said: string[] = [];
  for (let i = 0; i < lines.length; i++) {
    const line = lines[i] ?? '';
    const [, indent = '', language = ''] = /^( *)```(\w*)/.exec(line) ?? [];
    if (/^ *```/.test(line)) {
      const end = lines.findIndex((later, at) => at > i && later === `${indent}\`\`\``);
      if (end === -1) throw new Error(`${page}:${i + 1}: a block without an end`);
      if (SHELL.test(language)) blocks.push(blockOf(page, i + 1, lines.slice(i + 1, end).join('\n'), said));
      i = end;
      said = [];
    } else if (/^ *<!--.*-->$/.test(line)) said.push(line.trim());
    else if (line.trim() !== '') said = [];
  }
  const [, names = ''] = /<!-- not run on this page: (.+): [^:]+ -->/.exec(markdown) ?? [];
  return { blocks, leftOut: names === '' ? [] : names.split(',').map((name) => name.trim()) };
}

function blockOf(page: string, line: number, text: string, said: readonly string[]): ShellBlock {
  const all = said.join('\n');
  return {
    page,
    line,
    text,
    notRun: /<!-- not run: (.+) -->/.exec(all)?.[1],
    runBy: [...all.matchAll(/<!-- run: (\S+) "(.+)" -->/g)].map(([, test = '', part = '']) => ({ test, text: part })),
    isFirst: all.includes('<!-- run first -->'),
  };
}

/** A block without the commands (continued ones whole) that begin so. */
export function without(text: string, beginnings: readonly string[]): string {
  const isOne = (command: string, beginning: string) =>
    command.startsWith(beginning) && !/^[\w-]/.test(command.slice(beginning.length));
  const commands = text.split(/(?<!\\)\n/);
  return commands.filter((command) => !beginnings.some((each) => isOne(command.trim(), each))).join('\n');
}

/** Commands that belong to somebody's machine, not to a test's. */
const MACHINE =
  /(?:^|[;&|]\s*|\s)(?:sudo|apt|apt-get|systemctl|certbot|useradd|chown|git push|git tag|npm (?:ci|test|run release|install)|(?:rm|cp|ln|mv|mkdir|install|tee) .*\/(?:etc|usr|opt|var|root))(?=\s|$|\/)/m;

/** The first line of a block that would change the machine that it is run on; undefined: there is none. */
export function machineChange(text: string): string | undefined {
  return text.split('\n').find((line) => MACHINE.test(line.replace(/(?:^|\s)#.*$/, '')));
}
