/**
 * Vitest's global setup for suites that boot guests: makes the host ready where it may (root or passwordless sudo).
 * Where it may not, those suites are skipped, loudly; in CI that is a failure.
 */

import { findTool, run } from '../../origin/vm/command.ts';
import { MachineError } from '../../origin/vm/error.ts';
import { inspectHost, installHost } from '../../origin/vm/host.ts';

declare module 'vitest' {
  interface ProvidedContext {
    /** Whether this host can run guests. */
    guests: boolean;
    /** Whether OpenSSH's client is here. */
    ssh: boolean;
  }
}

export default async function setup({
  provide,
}: {
  provide: (key: 'guests' | 'ssh', value: boolean) => void;
}): Promise<void> {
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
  provide('ssh', await hasSsh());
}

async function hasSsh(): Promise<boolean> {
  if ((await findTool('ssh')) !== undefined) return true;
  const [file = '', ...prefix] = process.getuid?.() === 0 ? ['apt-get'] : ['sudo', '-n', 'apt-get'];
  const install = [...prefix, 'install', '-y', '--no-install-recommends', 'openssh-client'];
  try {
    await run(file, install, {
      code: 'install-failed',
      env: { DEBIAN_FRONTEND: 'noninteractive' },
      timeoutMs: 300_000,
    });
    return true;
  } catch (error) {
    if (process.env.CI) throw error;
    console.warn('\nOpenSSH is not tested on this host: install openssh-client.\n');
    return false;
  }
}
