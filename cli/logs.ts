/** Owns `moorage logs`: what a server wrote to stderr, in all machines it has run in, searched and followed. */

import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { createContext, Script } from 'node:vm';
import { printable } from '../origin/log.ts';
import { choose, type Entry, entriesOf, machinesOf } from '../origin/server-log.ts';
import { Follower } from '../origin/server-log-follower.ts';
import { type Command, textOf } from './command.ts';
import { stateDirOf } from './control.ts';
import { sinceOf } from './duration.ts';
import { UsageError } from './usage.ts';

const DEFAULT_LAST = 200;
const MAX_LAST = 100_000;
const FOLLOW_MS = 250;
/** For so many lines as are matched at once. */
const PATTERN_MS = 1_000;

export const command: Command = {
  usage: `logs <server> [--grep TEXT | --regexp RE] [--since 1h] [--machine KEY] [--last N] [--follow] [--json]

Shows what a server wrote to stderr, and when its processes ended, the oldest first.

  --grep TEXT    only lines that hold this text
  --regexp RE    only lines that this regular expression (JavaScript) finds
  --since TIME   only what is younger: 30s, 15m, 1h, 7d, or a date such as 2026-01-31T12:00Z
  --machine KEY  only of this machine, as "moorage machines" names it
  --last N       the newest N lines (default: ${DEFAULT_LAST})
  --follow       go on with what is written from now on
  --json         one object a line: at, server, machine, text
`,
  options: {
    grep: { type: 'string' },
    regexp: { type: 'string' },
    since: { type: 'string' },
    machine: { type: 'string' },
    last: { type: 'string' },
    follow: { type: 'boolean', short: 'f', default: false },
    json: { type: 'boolean', default: false },
  },
  run: async (input) => {
    const [server, ...more] = input.positionals;
    if (server === undefined || more.length > 0) throw new UsageError('Say "moorage logs <server>".');
    const matches = matcherOf(textOf(input, 'grep'), textOf(input, 'regexp'));
    const since = sinceOf(textOf(input, 'since'), Date.now());
    const machine = textOf(input, 'machine');
    const wanted = { since, machine, matches, last: lastOf(textOf(input, 'last')) };
    const logs = join(stateDirOf(input), 'logs');
    const follows = input.values.follow === true;
    if (/[/\\]/.test(server) || (!follows && machinesOf(logs, server).length === 0)) {
      throw new UsageError(
        `Nothing is kept of a server "${server}": it has not written to stderr, or is in another --state.`,
      );
    }
    process.stdout.on('error', () => process.exit(0));
    const write = (entries: readonly Entry[]) => {
      for (const entry of entries) process.stdout.write(`${lineOf(server, entry, input.values.json === true)}\n`);
    };
    const follower = follows ? new Follower(logs, server, sayMissed) : undefined;
    write(await entriesOf(logs, server, wanted, follower && ((of) => follower.beginOf(of))));
    while (follower) {
      await sleep(FOLLOW_MS);
      const news = follower.next().filter((entry) => machine === undefined || entry.machine === machine);
      write(choose(news, { since, matches }));
    }
    return 0;
  },
};

function sayMissed(machine: string): void {
  process.stderr.write(
    `Lines of machine ${machine} are missing here: their file was removed before it could be read.\n`,
  );
}

function lineOf(server: string, { at, machine, text }: Entry, json: boolean): string {
  const time = new Date(at).toISOString();
  return json ? JSON.stringify({ at: time, server, machine, text }) : `${time} ${machine}  ${printable(text)}`;
}

/**
 * Which of many lines are wanted. A regular expression that takes too long (they can take for ever) is given up.
 * @throws UsageError.
 */
export function matcherOf(grep: string | undefined, regexp: string | undefined) {
  if (regexp === undefined) {
    return (texts: readonly string[]): boolean[] => texts.map((text) => grep === undefined || text.includes(grep));
  }
  if (grep !== undefined) throw new UsageError('Give --grep or --regexp, not both.');
  let pattern: RegExp;
  try {
    pattern = new RegExp(regexp, 'u');
  } catch (error) {
    throw new UsageError(`--regexp: ${(error as Error).message}`);
  }
  const script = new Script('texts.map((text) => pattern.test(text))');
  return (texts: readonly string[]): boolean[] => {
    try {
      return script.runInContext(createContext({ texts, pattern }), { timeout: PATTERN_MS }) as boolean[];
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ERR_SCRIPT_EXECUTION_TIMEOUT') throw error;
      throw new UsageError('--regexp takes too long on these lines. Make it simpler, or use --grep.');
    }
  };
}

function lastOf(text: string | undefined): number {
  const last = text === undefined ? DEFAULT_LAST : Number(text);
  if (Number.isInteger(last) && last > 0 && last <= MAX_LAST) return last;
  throw new UsageError(`--last takes a number from 1 to ${MAX_LAST}.`);
}
