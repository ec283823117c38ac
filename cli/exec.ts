/** Owns `moorage exec`: a command in the machine of a server. */
import type { Command } from './command.ts';
import { enter } from './enter.ts';
import { UsageError } from './usage.ts';

export const command: Command = {
  usage: `exec [-t] <server> -- <command> [argument …]

Runs a command in the machine of a server, with its standard input, output and error apart, and ends with its exit code
(128 and its number for a signal). No shell reads the command: for one, say  -- sh -c "…".
  -t, --tty      on a terminal
`,
  options: { tty: { type: 'boolean', short: 't', default: false } },
  run: async (input) => {
    const [server, ...more] = input.positionals;
    if (server === undefined || more.length > 0 || input.rest.length === 0) {
      throw new UsageError('Say "moorage exec <server> -- <command> [argument …]".');
    }
    return await enter(input, { server, argv: input.rest, terminal: input.values.tty === true });
  },
};
