/** Owns `moorage machines`: the machines of the router that runs here. */
import { z } from 'zod';
import type { Command } from './command.ts';
import { controlOf } from './control.ts';
import { table } from './table.ts';

const answer = z.object({
  machines: z.array(
    z.looseObject({
      key: z.string(),
      state: z.string(),
      isolation: z.string(),
      owner: z.string().optional(),
      forkOf: z.string().optional(),
      crashLoop: z.string().optional(),
    }),
  ),
  troubles: z.array(z.looseObject({ server: z.string(), machine: z.string(), trouble: z.string(), text: z.string() })),
});

export const command: Command = {
  usage: `machines [--json]
       moorage machines --rm <machine>

Lists the machines of the router that runs here, with their states. Those of servers with
"isolation" are named with their owners; --rm removes one of them, with its disk: its owner
gets a new one at the next call.
`,
  options: { json: { type: 'boolean', default: false }, rm: { type: 'string' } },
  run: async (input) => {
    const control = controlOf(input);
    const { rm, json } = input.values;
    if (typeof rm === 'string') {
      await control.call('DELETE', `/v1/machines/${encodeURIComponent(rm)}`);
      return 0;
    }
    const { machines, troubles } = answer.parse(await control.call('GET', '/v1/machines'));
    if (json) {
      const listed = machines.map((one) => ({
        ...one,
        troubles: troubles.filter(({ machine }) => machine === one.key),
      }));
      process.stdout.write(`${JSON.stringify(listed, null, 2)}\n`);
      return 0;
    }
    const rows = machines.map(({ key, state, isolation, owner, forkOf }) => {
      const whose = owner ? `${forkOf === undefined ? isolation : 'of'} ${owner}` : '';
      return [key, state, forkOf === undefined ? whose : `fork of ${forkOf} ${whose}`.trimEnd()];
    });
    process.stdout.write(table(['MACHINE', 'STATE', 'OWNER'], rows));
    for (const { key, crashLoop } of machines)
      if (crashLoop !== undefined)
        process.stdout.write(`${key}: crash loop: ${crashLoop}. See logs/agent.log in the state folder\n`);
    for (const { server, machine, trouble, text } of troubles)
      process.stdout.write(`${server} in ${machine}: ${trouble}: ${text}. See: moorage logs ${server}\n`);
    return 0;
  },
};
