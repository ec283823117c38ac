/** Owns what `moorage up` tells: one URL a server, and a configuration that can be pasted into an MCP client. Pure. */
import { clientConfig } from '../router/client-config.ts';
import type { ServedFork } from '../router/origin-half.ts';
import { isEdgeServer, isHttpServer, machineOf } from '../shared/config/entry.ts';
import type { Config } from '../shared/config.ts';

export interface SummaryOptions {
  readonly config: Config;
  /** What is served beside it. */
  readonly forks: readonly ServedFork[];
  /** Base URL of the edge, without a slash at its end. */
  readonly url: string;
  readonly accelerator: 'kvm' | 'tcg' | 'none';
  /** Machines that run as plain processes because this host has no QEMU. */
  readonly fallback: boolean;
}

/** The text that `moorage up` ends with, ready to print. */
export function summary({ config, forks, url, accelerator, fallback }: SummaryOptions): string {
  const configured = [...config.servers].map(([name, entry]) => {
    const where = isEdgeServer(entry)
      ? 'answered at the edge'
      : isHttpServer(entry)
        ? 'reached at its own address'
        : entry.runtime === 'process' || fallback
          ? 'plain process on this machine (no isolation)'
          : `microVM "${machineOf(name, entry)}"${accelerator === 'tcg' ? ' (emulated)' : ''}, boots when called`;
    return [name, where] as const;
  });
  const copies = forks.map(({ server, of }) => [server, `copy of "${of}" (moorage fork)`] as const);
  const rows = [...configured, ...copies].map(([name, where]) => [name, `${url}/${name}/mcp`, where] as const);
  const [first, second] = [0, 1].map((column) => Math.max(...rows.map((row) => row[column]?.length ?? 0)));
  const lines = rows.map(
    ([name, address, where]) => `  ${name.padEnd(first ?? 0)}  ${address.padEnd(second ?? 0)}  ${where}`,
  );
  return [
    `Moorage serves ${rows.length} MCP ${rows.length === 1 ? 'server' : 'servers'} at ${url}`,
    '',
    ...lines,
    '',
    `All of them as one server: ${url}/mcp`,
    '',
    'Paste into your MCP client:',
    '',
    JSON.stringify(clientConfig(config, url), null, 2),
    '',
  ].join('\n');
}
