import { Gauge } from 'prom-client';

/** What a gauge is called, and the labels that it has. */
export interface GaugeName {
  readonly name: string;
  readonly help: string;
  readonly labelNames?: string[];
}

/**
 * A gauge that is read when somebody scrapes. What `read` does not set is not shown: unknown is not zero. It runs within the scrape,
 * so it waits for nothing: whatever takes time is looked at beforehand.
 */
export function scrapeGauge({ name, help, labelNames = [] }: GaugeName, read: (gauge: Gauge) => void): void {
  new Gauge({
    name,
    help,
    labelNames,
    collect() {
      this.reset();
      // prom-client sets one without labels to zero
      if (labelNames.length === 0) this.remove();
      read(this);
    },
  });
}
