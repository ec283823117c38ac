import { chmodSync, mkdtempSync, rmSync } from 'node:fs';
import { availableParallelism, tmpdir } from 'node:os';
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
 * Files run side by side: they share no port, no state folder and no machine, and the image cache that they share has locks.
 * Those without guests wait more than they compute: two for each processor.
 */
const shared = {
  maxWorkers: 2 * availableParallelism(),
  globalSetup: RUN_FOLDER,
  // Bounds for what never comes, not for what a loaded host makes slow.
  testTimeout: 60_000,
  hookTimeout: 60_000,
  expect: { poll: { timeout: 30_000 } },
};
const guests = {
  ...shared,
  // An emulated guest keeps a processor busy.
  maxWorkers: availableParallelism(),
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
