/** Ends a test run with what was skipped, by name, and one line that says how it went. */

import type { Reporter, TestModule, TestRunEndReason } from "vitest/node" with {
  "resolution-mode": "import",
};

/** The reporter; vitest loads it by its path. */
export default class SummaryReporter implements Reporter {
  onTestRunEnd(
    modules: readonly TestModule[],
    unhandledErrors: readonly unknown[],
    reason: TestRunEndReason,
  ): void {
    const count = { passed: 0, failed: unhandledErrors.length, skipped: 0 };
    for (const module of modules) {
      // A file that cannot be loaded, or whose hooks fail, is a failure even where it has no test.
      count.failed += module.errors().length;
      for (const suite of module.children.allSuites()) count.failed += suite.errors().length;
      for (const test of module.children.allTests()) {
        const result = test.result();
        const { state } = result;
        // A test that was not reached counts as skipped.
        const kind = state === "pending" ? "skipped" : state;
        count[kind] += 1;
        // What a test found out only as it ran; other reasons are in the names.
        const note = result.state === "skipped" && result.note !== undefined ? ` (${result.note})` : "";
        if (kind === "skipped") console.log(`skipped: ${module.relativeModuleId}: ${test.fullName}${note}`);
      }
    }
    // A run that failed before its first test has failed all the same.
    if (reason === "failed" && count.failed === 0) count.failed = 1;
    console.log(`\n${count.passed} passed, ${count.failed} failed, ${count.skipped} skipped`);
  }
}
