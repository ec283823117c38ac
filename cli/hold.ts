/** Owns `moorage hold`: machines that stay awake for a time though nobody calls them. */
import { z } from 'zod';
import { type Command, textOf } from './command.ts';
import { controlOf } from './control.ts';
import { durationOf } from './duration.ts';
import { table } from './table.ts';
import { UsageError } from './usage.ts';

const hold = z.object({ machine: z.string(), until: z.string() });
const DEFAULT_TIME = '1h';

export const command: Command = {
  usage: `hold <server> [--for 1h] [--json]
       moorage hold [--json]
       moorage hold --rm <server>

Keeps the machine of a server awake for a time, though nobody calls it; it is booted or woken
first. Without arguments what is held is listed; --rm lets it sleep again. A hold ends with its
machine, and with the router. From inside a machine: moorage-hold.

  --for TIME  such as 90s, 30m, 8h; 7d at most (default: ${DEFAULT_TIME})
  --json      as JSON
`,
  options: { for: { type: 'string' }, rm: { type: 'string' }, json: { type: 'boolean', default: false } },
  run: async (input) => {
    const [server, ...more] = input.positionals;
    const [time, rm] = [textOf(input, 'for'), textOf(input, 'rm')];
    if (more.length > 0 || (rm !== undefined && (server ?? time) !== undefined) || (time && !server)) {
      throw new UsageError('Say "moorage hold <server> --for 2h", or "moorage hold --rm <server>".');
    }
    const forMs = durationOf(time ?? DEFAULT_TIME);
    if (forMs === undefined) throw new UsageError('--for takes a time such as 90s, 30m, 8h or 7d.');
    const control = controlOf(input);
    const say = (value: unknown, text: string) =>
      process.stdout.write(input.values.json ? `${JSON.stringify(value, null, 2)}\n` : text);
    if (rm !== undefined) {
      await control.call('DELETE', `/v1/holds/${encodeURIComponent(rm)}`);
    } else if (server === undefined) {
      const { holds } = z.object({ holds: z.array(hold) }).parse(await control.call('GET', '/v1/holds'));
      const rows = holds.map(({ machine, until }) => [machine, until]);
      say(holds, table(['MACHINE', 'AWAKE UNTIL'], rows));
    } else {
      const made = hold.parse(await control.call('POST', '/v1/holds', { server, forMs }));
      say(made, `Machine "${made.machine}" stays awake until ${made.until}.\n`);
    }
    return 0;
  },
};
