/** Owns `moorage shell`: a terminal in the machine of a server. */
import type { Command } from './command.ts';
import { enter } from './enter.ts';
import { UsageError } from './usage.ts';

export const command: Command = {
  usage: `shell <server>

Opens a terminal in the machine of a server, which is booted or woken first and stays awake until the terminal is left.
Ends with the exit code of the shell.
`,
  options: {},
  run: async (input) => {
    const [server, ...more] = input.positionals;
    if (server === undefined) throw new UsageError('Which server? Say "moorage shell <server>".');
    if (more.length > 0 || input.rest.length > 0) {
      throw new UsageError('To run a command there, say "moorage exec <server> -- <command>".');
    }
    return await enter(input, { server, terminal: true });
  },
};
