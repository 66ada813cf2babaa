import { closeSync, existsSync, openSync, renameSync, writeSync } from 'node:fs';

/** Two such files for a program, the present and the one before: enough to look back on, too little to fill a disk. */
const FILE_BYTES_MAX = 20 * 1024 * 1024;

/** A program's log: the last start's is kept as `<file>.1`, and a long one goes there too. */
export class LogFile {
  private descriptor: number;
  private bytes = 0;

  constructor(private readonly file: string) {
    this.descriptor = this.open();
  }

  /** Never throws: a full disk must not end what is being logged. */
  line(text: string): void {
    const line = `${text}\n`;
    try {
      if (this.bytes > FILE_BYTES_MAX) {
        closeSync(this.descriptor);
        this.descriptor = this.open();
        this.bytes = 0;
      }
      this.bytes += writeSync(this.descriptor, line);
    } catch {
      // the line is lost; it was on its way to a file that cannot take it
    }
  }

  close(): void {
    closeSync(this.descriptor);
  }

  private open(): number {
    if (existsSync(this.file)) renameSync(this.file, `${this.file}.1`);
    return openSync(this.file, 'a', 0o600);
  }
}
