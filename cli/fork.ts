/** Owns `moorage fork`: a copy of a live machine, served under another name; the list of them, and their removal. */
import { z } from 'zod';
import { type Command, textOf } from './command.ts';
import { controlOf } from './control.ts';
import { table } from './table.ts';
import { UsageError } from './usage.ts';

const fork = z.looseObject({
  server: z.string(),
  of: z.string(),
  principal: z.string().optional(),
  createdAt: z.string(),
});
const made = fork.extend({
  cost: z.object({
    pausedMs: z.number(),
    silentMs: z.number(),
    settledMs: z.number().optional(),
    memoryBytes: z.number(),
    disk: z.enum(['shared', 'copied']),
  }),
  processes: z.object({ kept: z.number(), renewed: z.number() }).optional(),
});

export const command: Command = {
  usage: `fork <server> --as <name> [--principal SUBJECT] [--keep-processes] [--json]
       moorage fork [--json]
       moorage fork --rm <name>

Copies the machine of a server while it runs, memory and disk, and serves the copy as <name>.
<server> may be a fork too, or a machine of a single caller as "moorage machines" lists it: its
copy serves the same principal alone. Without arguments the forks are listed; --rm removes one
with its machine.

  --as NAME            the copy's name: it is at /<name>/mcp
  --principal SUBJECT  the machine that this principal has of the server
  --keep-processes     processes that sessions share go on in the copy with what they have in
                       memory, their random generators and secrets included, unless the copy is
                       given other secrets. Without it every process is started anew there
  --json               as JSON
`,
  options: {
    as: { type: 'string' },
    rm: { type: 'string' },
    principal: { type: 'string' },
    'keep-processes': { type: 'boolean', default: false },
    json: { type: 'boolean', default: false },
  },
  run: async (input) => {
    const control = controlOf(input);
    const [of, ...more] = input.positionals;
    const [as, rm, principal] = [textOf(input, 'as'), textOf(input, 'rm'), textOf(input, 'principal')];
    const say = (value: unknown, text: string) =>
      process.stdout.write(input.values.json ? `${JSON.stringify(value, null, 2)}\n` : text);
    if (more.length > 0 || (rm !== undefined && (of !== undefined || as !== undefined)) || ((as || principal) && !of)) {
      throw new UsageError('Say "moorage fork <server> --as <name>", or "moorage fork --rm <name>".');
    }
    if (rm !== undefined) {
      await control.call('DELETE', `/v1/forks/${encodeURIComponent(rm)}`);
    } else if (of === undefined) {
      const { forks } = z.object({ forks: z.array(fork) }).parse(await control.call('GET', '/v1/forks'));
      const rows = forks.map((each) => [each.server, each.of, each.createdAt, each.principal ?? '']);
      say(forks, table(['FORK', 'OF', 'MADE', 'SERVES ONLY'], rows));
    } else if (as === undefined) {
      throw new UsageError(`How is the copy called? Say "moorage fork ${of} --as <name>".`);
    } else {
      const keep = input.values['keep-processes'] === true;
      const result = made.parse(await control.call('POST', '/v1/forks', { of, principal, as, keep }));
      say(result, told(result));
    }
    return 0;
  },
};

function told({ server, of, principal, cost, processes }: z.infer<typeof made>): string {
  const ms = (time: number) => `${time < 10 ? time.toFixed(1) : time.toFixed(0)} ms`;
  const memory = `${(cost.memoryBytes / 1e6).toFixed(1)} MB`;
  const settled =
    cost.settledMs === undefined
      ? ''
      : ` (and ${ms(cost.settledMs)} before, its memory was written for the first time)`;
  return [
    `${server} is a copy of ${of}, at /${server}/mcp${principal === undefined ? '' : `, for ${principal} alone`}`,
    `  ${of} stood still for ${ms(cost.pausedMs)}${settled}`,
    `  memory: ${memory} written, the rest is shared`,
    cost.disk === 'shared'
      ? '  disk: shared until either of them writes'
      : '  disk: copied without its holes (this file system cannot share blocks)',
    ...(processes === undefined ? [] : [`  processes: ${processes.kept} go on in it${renewed(processes.renewed)}`]),
    '',
  ].join('\n');
}

const renewed = (count: number): string =>
  count === 0 ? '' : `; ${count} start anew, because it is given other secrets than they have`;
