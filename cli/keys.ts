/** Owns `moorage keys rotate`: the edge of a state folder changes the key that its origins pin. */
import { rotateEdgeKey } from '../router/state.ts';
import type { Command } from './command.ts';
import { stateDirOf } from './control.ts';
import { UsageError } from './usage.ts';

export const command: Command = {
  usage: `keys rotate [--finish]

Changes the key with which the edge of this state folder speaks to its origins, in two steps, each followed by a restart of
"moorage up". The first announces a new key to every origin that connects; the second uses it. An origin that was not
connected in between must join again.

  --finish  the second step
`,
  options: { finish: { type: 'boolean', default: false } },
  run: async (input) => {
    if (input.positionals.join(' ') !== 'rotate')
      throw new UsageError('Say "moorage keys rotate". See "moorage help keys".');
    const finish = input.values.finish === true;
    await rotateEdgeKey(stateDirOf(input), finish ? 'finish' : 'prepare');
    process.stdout.write(
      finish
        ? 'From its next start on the edge uses the new key. The old one is worth nothing.\n'
        : 'From its next start on the edge announces a new key. When all origins have connected: "moorage keys rotate --finish".\n',
    );
    return 0;
  },
};
