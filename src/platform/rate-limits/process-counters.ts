import type { CounterWindow, Taken } from './counter-window.js';

/**
 * Entries kept, of 200 bytes each. Beyond it the oldest goes: whoever can make so many has as many addresses, and gains
 * little by having one forgotten.
 */
const ENTRIES_MAX = 100_000;

interface Entry {
  count: number;
  readonly endsAt: number;
}

/** Counters of this process alone: without Redis, and while it is away. Does the same as the scripts in counters.lua.ts. */
export class ProcessCounters {
  private readonly entries = new Map<string, Entry>();

  take(windows: readonly CounterWindow[]): Taken {
    const granted = windows.every(({ key, quota }) => (this.alive(key)?.count ?? 0) < quota);
    return {
      granted,
      windows: windows.map((window) => {
        const entry = this.alive(window.key) ?? (granted ? this.begin(window.key, window.seconds) : undefined);
        if (entry && granted) entry.count += 1;
        return {
          left: Math.max(0, window.quota - (entry?.count ?? 0)),
          resetMs: entry ? entry.endsAt - Date.now() : window.seconds * 1000,
        };
      }),
    };
  }

  giveBack(keys: readonly string[]): void {
    for (const key of keys) {
      const entry = this.alive(key);
      if (entry && entry.count > 0) entry.count -= 1;
    }
  }

  clear(keys: readonly string[]): void {
    for (const key of keys) this.entries.delete(key);
  }

  mark(key: string, seconds: number): void {
    this.entries.delete(key);
    this.begin(key, seconds);
  }

  isMarked(key: string): boolean {
    return this.alive(key) !== undefined;
  }

  private alive(key: string): Entry | undefined {
    const entry = this.entries.get(key);
    if (entry && entry.endsAt > Date.now()) return entry;
    this.entries.delete(key);
    return undefined;
  }

  private begin(key: string, seconds: number): Entry {
    const [oldest] = this.entries.keys();
    if (oldest !== undefined && this.entries.size >= ENTRIES_MAX) this.entries.delete(oldest);
    const entry = { count: 0, endsAt: Date.now() + seconds * 1000 };
    this.entries.set(key, entry);
    return entry;
  }
}
