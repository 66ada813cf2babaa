/** The end of what is under way, for those who drain. */
export class Quiet {
  private onQuiet: () => void = () => undefined;

  /** @param isQuiet whether nothing is under way */
  constructor(private readonly isQuiet: () => boolean) {}

  /** Something has ended. */
  check(): void {
    if (this.isQuiet()) this.onQuiet();
  }

  /** Resolves when nothing is under way any more, or after `graceMs`. */
  async within(graceMs: number): Promise<void> {
    if (this.isQuiet()) return;
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, graceMs);
      this.onQuiet = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }
}
