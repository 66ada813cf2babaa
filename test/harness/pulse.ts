import { Api } from './api.js';

/**
 * Asks a backend for `/health/live`, which looks at nothing, again and again, so that one request is under way at any time: what holds
 * up all of a backend, or the machine, holds that one up too, and shows how long.
 */
export class Pulse {
  private readonly beats: { readonly from: number; readonly to: number }[] = [];
  private isOver = false;
  private readonly beating: Promise<void>;

  constructor(url: string) {
    this.beating = this.beat(new Api(url));
  }

  /** Resolves when the last request is answered. */
  async stop(): Promise<void> {
    this.isOver = true;
    await this.beating;
  }

  /** The longest of its requests that was under way at some moment between these, in ms; of those that are answered. */
  longest(from: number, to: number): number {
    return Math.max(
      0,
      ...this.beats.filter((beat) => beat.from < to && beat.to > from).map((beat) => beat.to - beat.from),
    );
  }

  private async beat(api: Api): Promise<void> {
    while (!this.isOver) {
      const from = performance.now();
      await api.get('/health/live');
      this.beats.push({ from, to: performance.now() });
    }
  }
}
