/** Owns what separates servers with runtime `vm` from this host when it cannot run microVMs: the caller's word decides. */
import type { Log } from '../origin/log.ts';
import { type HostReport, inspectHost } from '../origin/vm/host.ts';
import type { Config } from '../shared/config.ts';
import { RouterError } from './error.ts';

/**
 * `refuse`: the router does not start. `process`: they run as plain processes, without isolation. `skip`: they are left
 * out, the others are served.
 */
export type Fallback = 'refuse' | 'process' | 'skip';

export interface Settled {
  /** What is served. */
  readonly config: Config;
  readonly isolation: 'vm' | 'process' | 'none';
}

const NO_ISOLATION =
  'NO ISOLATION: servers with runtime "vm" run as plain processes: they see your files and network, share your user, have no limits, and one can disturb another.';

/** @throws RouterError `host_unfit` naming the command that makes the host fit. */
export async function settleIsolation(
  config: Config,
  fallback: Fallback,
  log: Pick<Log, 'warn'>,
  inspect: () => Promise<HostReport> = inspectHost,
): Promise<Settled> {
  const wanting = [...config.servers].filter(([, entry]) => entry.runtime === 'vm').map(([name]) => name);
  const plain = [...config.servers.values()].some((entry) => entry.runtime === 'process');
  if (wanting.length === 0) return { config, isolation: plain ? 'process' : 'none' };
  const report = await inspect();
  if (report.ok) return { config, isolation: 'vm' };
  const lacks = `microVMs need what this host lacks: ${report.missing.join(', ')}`;
  switch (fallback) {
    case 'refuse':
      throw new RouterError('host_unfit', `${lacks}. ${remedy(report)} ${without(wanting)}`);
    case 'process':
      log.warn(NO_ISOLATION);
      return { config, isolation: 'process' };
    case 'skip': {
      log.warn(`${lacks}. Not served: ${wanting.join(', ')}.`);
      const servers = new Map([...config.servers].filter(([, entry]) => entry.runtime !== 'vm'));
      return { config: { ...config, servers }, isolation: plain ? 'process' : 'none' };
    }
  }
}

function remedy({ missing, installCommand }: HostReport): string {
  return missing.includes('linux-x86_64') || missing.includes('apt-get')
    ? 'They run on x86_64 Linux with apt (Debian, Ubuntu).'
    : `Install it with: ${installCommand}\n`;
}

const without = (servers: readonly string[]): string =>
  `Or let ${servers.join(', ')} run without isolation: "runtime": "process" in the configuration, or fallback: 'process' in a program.`;
