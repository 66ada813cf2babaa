/** No try takes longer. */
const TRY_MS_MAX = 60_000;

/** How long nothing worked: from the first try that failed to the first that was begun later and did not. */
export class Outage {
  private since: number | undefined;
  private longest = 0;
  /** When those that worked were begun; of the time that a try may take. */
  private begunWell: number[] = [];

  failed(startedAt: number): void {
    // it may have hung while others, begun later, worked
    const next = Math.min(...this.begunWell.filter((at) => at > startedAt));
    if (this.since === undefined && next < Infinity) {
      this.longest = Math.max(this.longest, next - startedAt);
      return;
    }
    this.since ??= startedAt;
    this.note(performance.now());
  }

  worked(startedAt: number): void {
    this.begunWell = [...this.begunWell.filter((at) => at > startedAt - TRY_MS_MAX), startedAt];
    if (this.since === undefined || startedAt < this.since) return;
    this.note(startedAt);
    this.since = undefined;
  }

  get isOver(): boolean {
    return this.since === undefined;
  }

  /** The longest since the last call, in milliseconds; one that goes on is counted up to now. */
  take(): number {
    const { longest } = this;
    this.longest = 0;
    return longest;
  }

  private note(until: number): void {
    if (this.since !== undefined) this.longest = Math.max(this.longest, until - this.since);
  }
}
