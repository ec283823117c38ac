/** Owns `moorage doctor`: what this host offers to the configuration, and what to do about the rest. */
import { existsSync } from 'node:fs';
import { type Check, checksOf, isFit, type Wanted } from '../origin/doctor/checks.ts';
import { hostFacts } from '../origin/doctor/facts.ts';
import { defaultCacheDir } from '../origin/images/cache.ts';
import { machineDefinitions, memoryBudgetMiB, serverDefinitions } from '../origin/server.ts';
import type { Config } from '../shared/config.ts';
import type { Command } from './command.ts';
import { DEFAULT_CONFIG, readConfig } from './config-file.ts';
import { stateDirOf } from './control.ts';
import { UsageError } from './usage.ts';

export const command: Command = {
  usage: `doctor [--json]

Says what holds on this host: KVM, the walls around machines, limits, room. Without a configuration
it looks for what microVMs need. Ends with 1 when something is missing that the configuration needs.
`,
  options: { json: { type: 'boolean', default: false } },
  run: async (input) => {
    if (input.positionals.length > 0) throw new UsageError('"moorage doctor" takes no arguments.');
    const config =
      input.config === DEFAULT_CONFIG && !existsSync(DEFAULT_CONFIG) ? undefined : readConfig(input.config);
    const facts = await hostFacts({ stateDir: stateDirOf(input), cacheDir: defaultCacheDir() });
    const checks = checksOf(facts, wantedBy(config, facts.memoryMiB));
    const fit = isFit(checks);
    process.stdout.write(input.values.json ? `${JSON.stringify({ fit, checks }, null, 2)}\n` : report(checks));
    return fit ? 0 : 1;
  },
};

function wantedBy(config: Config | undefined, hostMiB: number): Wanted {
  const budgetMiB = memoryBudgetMiB(config?.origin.memory, hostMiB);
  if (!config) return { machines: true, largestMachineMiB: 0, disksMiB: 0, budgetMiB };
  const machines = machineDefinitions(serverDefinitions(config)).filter(({ runtime }) => runtime === 'vm');
  return {
    machines: machines.length > 0,
    largestMachineMiB: Math.max(0, ...machines.map(({ memoryMiB }) => memoryMiB)),
    disksMiB: machines.reduce((sum, { diskMiB }) => sum + diskMiB, 0),
    budgetMiB,
  };
}

/** One line a check, and what to do below those that are not ok. Pure. */
export function report(checks: readonly Check[]): string {
  const width = Math.max(...checks.map(({ id }) => id.length));
  const lines = checks.flatMap(({ id, state, needed, found, advice }) => {
    const word = state === 'missing' ? (needed ? 'NEEDED' : 'not here') : state;
    const line = `${word.padEnd(8)}  ${id.padEnd(width)}  ${found}`;
    return advice === undefined ? [line] : [line, `${' '.repeat(width + 12)}${advice}`];
  });
  return `${lines.join('\n')}\n`;
}
