import { availableParallelism } from "node:os";
import { defineConfig } from "vitest/config";

const slow = ["test/**/*.vm.test.ts", "test/**/*.e2e.test.ts"];

export default defineConfig({
  test: {
    reporters: ["default", "./test/lab/summary-reporter.ts"],
    projects: [
      {
        test: {
          name: "unit",
          include: ["test/**/*.test.ts"],
          exclude: slow,
          testTimeout: 60_000,
          hookTimeout: 60_000,
          sequence: { groupOrder: 0 },
        },
      },
      {
        // Real guests and the real engine: an emulated guest takes a processor for itself.
        test: {
          name: "vm",
          include: slow,
          globalSetup: "./test/lab/setup.ts",
          maxWorkers: Math.max(2, Math.floor(availableParallelism() / 2)),
          testTimeout: 300_000,
          hookTimeout: 120_000,
          sequence: { groupOrder: 1 },
        },
      },
    ],
  },
});
