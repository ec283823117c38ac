/** Owns `moorage machines`: the machines of the router that runs here. */
import { z } from 'zod';
import type { Command } from './command.ts';
import { controlOf } from './control.ts';
import { table } from './table.ts';

const answer = z.object({ machines: z.array(z.looseObject({ key: z.string(), state: z.string() })) });

export const command: Command = {
  usage: `machines [--json]

Lists the machines of the router that runs here, with their states.
`,
  options: { json: { type: 'boolean', default: false } },
  run: async (input) => {
    const { machines } = answer.parse(await controlOf(input).call('GET', '/v1/machines'));
    process.stdout.write(
      input.values.json
        ? `${JSON.stringify(machines, null, 2)}\n`
        : table(
            ['MACHINE', 'STATE'],
            machines.map(({ key, state }) => [key, state]),
          ),
    );
    return 0;
  },
};
