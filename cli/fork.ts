/** Owns `moorage fork`: a copy of a live machine, served under another name; the list of them, and their removal. */
import { z } from 'zod';
import { type Command, textOf } from './command.ts';
import { controlOf } from './control.ts';
import { table } from './table.ts';
import { UsageError } from './usage.ts';

const fork = z.looseObject({ server: z.string(), of: z.string(), createdAt: z.string() });
const made = fork.extend({
  cost: z.object({
    pausedMs: z.number(),
    silentMs: z.number(),
    settledMs: z.number().optional(),
    memoryBytes: z.number(),
    disk: z.enum(['shared', 'copied']),
  }),
});

export const command: Command = {
  usage: `fork <server> --as <name> [--keep-processes] [--json]
       moorage fork [--json]
       moorage fork --rm <name>

Copies the machine of a server while it runs, memory and disk, and serves the copy as <name>.
Without arguments the forks are listed; --rm removes one with its machine.

  --as NAME         the copy's name: it is at /<name>/mcp
  --keep-processes  processes that sessions share go on in the copy with what they have in
                    memory, their random generators and secrets included. Without it every
                    process is started anew there
  --json            as JSON
`,
  options: {
    as: { type: 'string' },
    rm: { type: 'string' },
    'keep-processes': { type: 'boolean', default: false },
    json: { type: 'boolean', default: false },
  },
  run: async (input) => {
    const control = controlOf(input);
    const [of, ...more] = input.positionals;
    const [as, rm] = [textOf(input, 'as'), textOf(input, 'rm')];
    const say = (value: unknown, text: string) =>
      process.stdout.write(input.values.json ? `${JSON.stringify(value, null, 2)}\n` : text);
    if (more.length > 0 || (rm !== undefined && (of !== undefined || as !== undefined)) || (as && !of)) {
      throw new UsageError('Say "moorage fork <server> --as <name>", or "moorage fork --rm <name>".');
    }
    if (rm !== undefined) {
      await control.call('DELETE', `/v1/forks/${encodeURIComponent(rm)}`);
    } else if (of === undefined) {
      const { forks } = z.object({ forks: z.array(fork) }).parse(await control.call('GET', '/v1/forks'));
      const rows = forks.map((each) => [each.server, each.of, each.createdAt]);
      say(forks, table(['FORK', 'OF', 'MADE'], rows));
    } else if (as === undefined) {
      throw new UsageError(`How is the copy called? Say "moorage fork ${of} --as <name>".`);
    } else {
      const keep = input.values['keep-processes'] === true;
      const result = made.parse(await control.call('POST', '/v1/forks', { of, as, keep }));
      say(result, told(result));
    }
    return 0;
  },
};

function told({ server, of, cost }: z.infer<typeof made>): string {
  const ms = (time: number) => `${time < 10 ? time.toFixed(1) : time.toFixed(0)} ms`;
  const memory = `${(cost.memoryBytes / 1e6).toFixed(1)} MB`;
  const settled =
    cost.settledMs === undefined
      ? ''
      : ` (and ${ms(cost.settledMs)} before, its memory was written for the first time)`;
  return [
    `${server} is a copy of ${of}, at /${server}/mcp`,
    `  ${of} stood still for ${ms(cost.pausedMs)}${settled}`,
    `  memory: ${memory} written, the rest is shared`,
    cost.disk === 'shared'
      ? '  disk: shared until either of them writes'
      : '  disk: copied without its holes (this file system cannot share blocks)',
    '',
  ].join('\n');
}
