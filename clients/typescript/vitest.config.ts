import { defineConfig } from "vitest/config";

// Servers and browsers share few cores with others.
export default defineConfig({
  test: { include: ["test/*.test.ts"], testTimeout: 60_000, hookTimeout: 30_000, maxWorkers: 2 },
});
