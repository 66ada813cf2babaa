import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    globalSetup: ['test/harness/global-setup.ts'],
    reporters: ['default', './test/harness/count-reporter.ts'],
    // real processes on real sockets: two suites at a time are what two cores carry
    pool: 'forks',
    maxWorkers: 2,
    // what hangs ends; what something may take is for the test to say
    testTimeout: 120_000,
    hookTimeout: 120_000,
  },
});
