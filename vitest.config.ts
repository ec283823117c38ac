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

/**
 * A worker for each processor: an emulated guest keeps one busy, so one file at a time would leave the others idle. Files share
 * no port, no state folder and no machine; the image cache that they share has locks.
 */
const shared = {
  maxWorkers: '100%',
  globalSetup: RUN_FOLDER,
  // Bounds for what never comes, not for what a loaded host makes slow.
  testTimeout: 60_000,
  hookTimeout: 60_000,
  expect: { poll: { timeout: 30_000 } },
};
const guests = {
  ...shared,
  globalSetup: [RUN_FOLDER, 'test/support/host.ts'],
  hookTimeout: 900_000,
  // After the quick ones: what is plainly wrong shows early.
  sequence: { groupOrder: 1 },
};

/** Suites by what they need: nothing; a real workerd; a real QEMU guest; everything together. */
export default defineConfig({
  test: {
    projects: [
      {
        test: {
          ...shared,
          name: 'unit',
          include: ['test/**/*.test.ts'],
          exclude: ['test/**/*.{edge,vm,e2e}.test.ts'],
        },
      },
      { test: { ...shared, name: 'edge', include: ['test/**/*.edge.test.ts'] } },
      { test: { ...guests, name: 'vm', include: ['test/**/*.vm.test.ts'], testTimeout: 300_000 } },
      { test: { ...guests, name: 'e2e', include: ['test/**/*.e2e.test.ts'], testTimeout: 1_500_000 } },
    ],
  },
});
