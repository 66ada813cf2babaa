import { Injectable } from '@nestjs/common';

import { buildVersion } from '../protocol/build-version.js';
import { scrapeGauge } from './scrape-gauge.js';

/** Which version runs. */
@Injectable()
export class BuildMetrics {
  constructor() {
    const version = buildVersion();
    scrapeGauge(
      { name: 'bore_build_info', help: 'Always 1; the label says which version runs', labelNames: ['version'] },
      (gauge) => gauge.set({ version }, 1),
    );
  }
}
