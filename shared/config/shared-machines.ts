/** Owns the rules for servers that share a machine. */
import { isEdgeServer, isHttpServer, isolationOf, machineOf, type ServerEntry } from './entry.ts';
import { LIMIT_NAMES } from './limits.ts';
import type { MachineServer } from './machine-entry.ts';

/** Servers of one machine run in one guest: they must agree on where and how large it is. */
export function machineProblems(servers: ReadonlyMap<string, ServerEntry>): string[] {
  const problems: string[] = [];
  const seen = new Map<string, { name: string; entry: MachineServer }>();
  for (const [name, entry] of servers) {
    if (isEdgeServer(entry) || isHttpServer(entry)) continue;
    const isolation = isolationOf(entry);
    if (entry.runtime === 'process' && isolation !== 'server')
      problems.push(`mcpServers.${name}.isolation: plain processes are not kept apart: use the runtime "vm"`);
    const machine = machineOf(name, entry);
    const other = seen.get(machine);
    if (!other) {
      seen.set(machine, { name, entry });
      continue;
    }
    if (other.entry.machine === undefined && entry.machine === undefined) {
      problems.push(
        `mcpServers.${name}: its machine would be named like that of "${other.name}": rename it or set "machine"`,
      );
    }
    if (other.entry.runtime !== entry.runtime) {
      problems.push(`mcpServers.${name}.runtime: "${other.name}" shares machine "${machine}" and has another runtime`);
    }
    if (isolationOf(other.entry) !== isolation)
      problems.push(
        `mcpServers.${name}.isolation: "${other.name}" shares machine "${machine}" and has another isolation: give both the same`,
      );
    else if (isolation === 'session')
      problems.push(
        `mcpServers.${name}.machine: the machine of a session belongs to one server, "${other.name}" cannot share it`,
      );
    for (const key of LIMIT_NAMES) {
      const [a, b] = [other.entry.limits[key], entry.limits[key]];
      if (a !== undefined && b !== undefined && a !== b) {
        problems.push(
          `mcpServers.${name}.limits.${key}: "${other.name}" shares machine "${machine}" and says otherwise`,
        );
      }
    }
  }
  return problems;
}
