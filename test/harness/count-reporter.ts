import type { Reporter, TestCase, TestModule } from 'vitest/node';

/** Says why tests were skipped, and ends the run's output with `N passed, N failed`, for machines to read. */
export default class CountReporter implements Reporter {
  /** Unless the run comes to its end, something failed. */
  private line = '0 passed, 1 failed';

  onInit(): void {
    // the very last line: the database of the run is stopped after the reporters have had their say
    process.on('exit', () => process.stdout.write(`${this.line}\n`));
  }

  onTestRunEnd(modules: readonly TestModule[], unhandledErrors: readonly unknown[]): void {
    const tests = modules.flatMap((module) => [...module.children.allTests()]);
    const count = (state: string): number => tests.filter((test) => test.result().state === state).length;
    // a file that could not be loaded, or whose preparation failed, has no failed test, and is not a success
    const broken = modules.filter(
      (module) => module.state() === 'failed' && [...module.children.allTests('failed')].length === 0,
    );
    const nothing = modules.length === 0 ? 1 : 0;
    const failed = count('failed') + count('pending') + broken.length + unhandledErrors.length + nothing;
    const skipped = tests.filter((test) => test.result().state === 'skipped');
    for (const test of skipped) process.stdout.write(`skipped: ${test.fullName}: ${reasonOf(test)}\n`);
    this.line = `${count('passed')} passed, ${failed} failed${skipped.length > 0 ? `, ${skipped.length} skipped` : ''}`;
  }
}

function reasonOf(test: TestCase): string {
  const result = test.result();
  return (result.state === 'skipped' && result.note) || 'no reason was given';
}
