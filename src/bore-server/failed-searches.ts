import { FAILED_SEARCH_SOURCES_MAX, FAILED_SEARCH_WINDOW_MS, FAILED_SEARCHES_MAX } from './limits.js';

/** Counts searches by secret alone that found nothing, by source address, in windows of fixed length. */
export class FailedSearches {
  private readonly bySource = new Map<string, { count: number; until: number }>();

  constructor(private readonly now: () => number = () => performance.now()) {}

  isBlocked(source: string): boolean {
    const entry = this.bySource.get(source);
    return entry !== undefined && entry.until > this.now() && entry.count >= FAILED_SEARCHES_MAX;
  }

  add(source: string): void {
    const entry = this.bySource.get(source);
    if (entry && entry.until > this.now()) {
      entry.count++;
      return;
    }
    // to the end of the map, where the newest windows are
    this.bySource.delete(source);
    this.bySource.set(source, { count: 1, until: this.now() + FAILED_SEARCH_WINDOW_MS });
    const [oldest] = this.bySource.keys();
    if (this.bySource.size > FAILED_SEARCH_SOURCES_MAX && oldest !== undefined) this.bySource.delete(oldest);
  }
}
