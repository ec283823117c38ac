/** The command line of the benchmark, and what this host is given to do when it says nothing. Pure. */
import { parseArgs } from 'node:util';

export interface Options {
  /** Where the figures go as JSON. */
  readonly json: string | undefined;
  /** Machines that are woken at once. */
  readonly wakes: number;
  /** Machines that sleep while the agent's memory is weighed. */
  readonly sleeping: number;
}

export interface HostSize {
  readonly cpus: number;
  readonly memoryMiB: number;
}

/** Of every machine that is measured. */
export const GUEST_MIB = 256;
export const USAGE =
  'Usage: npm run bench -- machines [--json FILE] [--wakes N] [--sleeping N]\n' +
  '  --wakes N     machines woken at once (default: 100, or what cores and memory of this host allow)\n' +
  '  --sleeping N  sleeping machines of which the agent is weighed (default: 1000)';
const MOST_WAKES = 100;
const WAKES_PER_CPU = 4;

/** Four a core, and half of the memory, at most 100. */
export function wakesFor({ cpus, memoryMiB }: HostSize): number {
  return Math.max(1, Math.min(MOST_WAKES, cpus * WAKES_PER_CPU, Math.floor(memoryMiB / 2 / GUEST_MIB)));
}

/** @throws Error with the usage. */
export function parseOptions(argv: readonly string[], host: HostSize): Options {
  const { values, positionals } = parseArgs({
    args: [...argv],
    allowPositionals: true,
    options: { json: { type: 'string' }, wakes: { type: 'string' }, sleeping: { type: 'string' } },
  });
  if (positionals.length !== 1 || positionals[0] !== 'machines') throw new Error(USAGE);
  return {
    json: values.json,
    wakes: count('wakes', values.wakes, 1_000) ?? wakesFor(host),
    sleeping: count('sleeping', values.sleeping, 10_000) ?? 1_000,
  };
}

function count(name: string, text: string | undefined, most: number): number | undefined {
  if (text === undefined) return undefined;
  const value = Number(text);
  if (Number.isInteger(value) && value >= 1 && value <= most) return value;
  throw new Error(`--${name}: write a number from 1 to ${most}.\n${USAGE}`);
}
