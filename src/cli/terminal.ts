/**
 * What the person or the script at the other end reads: results on stdout, notices on stderr.
 */

/** Text from elsewhere without what could move the cursor, recolour or forge lines. */
export function printable(text: string): string {
  return text.replaceAll(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]+/gu, ' ');
}

/** A line of the result. */
export function print(line: string): void {
  process.stdout.write(`${line}\n`);
}

/** A line beside the result. */
export function notice(line: string): void {
  process.stderr.write(`${printable(line)}\n`);
}

/** A reader that has gone away (`borectl open 8080 | head -1`) must not end a tunnel. */
export function surviveClosedOutput(): void {
  for (const stream of [process.stdout, process.stderr]) {
    stream.on('error', (error: NodeJS.ErrnoException) => {
      if (error.code !== 'EPIPE') throw error;
    });
  }
}

/** A notice for what may happen many times: said at most once in `everyMs`, with how often it happened since. */
export class OccasionalNotice {
  private saidAt = -Infinity;
  private unsaid = 0;

  constructor(private readonly everyMs: number) {}

  say(line: string): void {
    const now = performance.now();
    if (now - this.saidAt < this.everyMs) {
      this.unsaid++;
      return;
    }
    notice(this.unsaid > 0 ? `${line} (and ${this.unsaid} times before)` : line);
    this.saidAt = now;
    this.unsaid = 0;
  }
}
