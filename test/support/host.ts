/**
 * Vitest's global setup for suites that boot guests: makes the host ready where it may (root or passwordless sudo).
 * Where it may not, those suites are skipped, loudly; in CI that is a failure.
 */

import { MachineError } from '../../origin/vm/error.ts';
import { inspectHost, installHost } from '../../origin/vm/host.ts';

declare module 'vitest' {
  interface ProvidedContext {
    /** Whether this host can run guests. */
    guests: boolean;
  }
}

export default async function setup({ provide }: { provide: (key: 'guests', value: boolean) => void }): Promise<void> {
  let ready = (await inspectHost()).ok;
  if (!ready) {
    try {
      await installHost((line) => console.log(line));
      ready = true;
    } catch (error) {
      if (!(error instanceof MachineError) || process.env.CI) throw error;
      console.warn(`\nNO GUEST IS TESTED on this host, those tests are skipped. ${error.message}\n`);
    }
  }
  provide('guests', ready);
}
