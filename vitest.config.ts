import { chmodSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { defineConfig } from 'vitest/config';

/** The temporary folder of this run: what tests leave in it goes with it. */
const temporary = mkdtempSync(join(tmpdir(), 'mt-'));
// As the one it stands in: some tests have users of their own.
chmodSync(temporary, 0o755);
process.env.TMPDIR = temporary;
process.on('exit', () => rmSync(temporary, { recursive: true, force: true }));

const RUN_FOLDER = 'test/support/run-folder.ts';

/** Suites by what they need: nothing; a real workerd; a real QEMU guest; everything together. */
export default defineConfig({
  test: {
    projects: [
      {
        test: {
          name: 'unit',
          include: ['test/**/*.test.ts'],
          exclude: ['test/**/*.{edge,vm,e2e}.test.ts'],
          // A bound for what hangs, not for what a loaded host makes slow.
          testTimeout: 60_000,
          globalSetup: RUN_FOLDER,
        },
      },
      {
        test: {
          name: 'edge',
          include: ['test/**/*.edge.test.ts'],
          globalSetup: RUN_FOLDER,
          testTimeout: 60_000,
          hookTimeout: 60_000,
        },
      },
      {
        test: {
          name: 'vm',
          globalSetup: [RUN_FOLDER, 'test/support/host.ts'],
          include: ['test/**/*.vm.test.ts'],
          testTimeout: 300_000,
          hookTimeout: 600_000,
          fileParallelism: false,
        },
      },
      {
        test: {
          name: 'e2e',
          globalSetup: [RUN_FOLDER, 'test/support/host.ts'],
          include: ['test/**/*.e2e.test.ts'],
          testTimeout: 600_000,
          hookTimeout: 900_000,
          fileParallelism: false,
        },
      },
    ],
  },
});
