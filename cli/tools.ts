/** Owns `moorage tools`: what changed of a server's tools since they were accepted, and accepting it. */
import { cleaned } from '../shared/hidden-characters.ts';
import { DEFINING, type ToolDifference, type ToolDifferences, toolDifferences } from '../shared/pins.ts';
import { adminOf } from './admin.ts';
import { type Command, textOf } from './command.ts';
import { UsageError } from './usage.ts';

export const command: Command = {
  usage: `tools diff <server> | accept <server> [<tool> …]

Shows which tools of a server are not what they were when it was deployed, and accepts them: all that wait, or those named.
Servers with "pins": "hold" keep them back until then; with "warn" they pass, and are shown here. "diff" exits with 1 when
something waits.

  --url URL  the router is there; a token with the scope "admin" is read from MOORAGE_TOKEN
  --json     for programs
`,
  options: { url: { type: 'string' }, json: { type: 'boolean', default: false } },
  run: async (input) => {
    const [action, server, ...names] = input.positionals;
    if ((action !== 'diff' && action !== 'accept') || server === undefined || (action === 'diff' && names.length > 0)) {
      throw new UsageError('Say "moorage tools diff <server>" or "accept <server>". See "moorage help tools".');
    }
    const client = await adminOf({ config: input.config, state: input.state, url: textOf(input, 'url') });
    const path = `/tools/${encodeURIComponent(server)}`;
    const differences = toolDifferences.parse(await client.get(path));
    const held = differences?.held ?? [];
    if (action === 'diff') {
      process.stdout.write(
        input.values.json ? `${JSON.stringify(differences, null, 2)}\n` : shown(server, differences),
      );
      return held.length > 0 ? 1 : 0;
    }
    const unknown = names.find((name) => !held.some((difference) => difference.name === name));
    if (unknown !== undefined) throw new UsageError(`"${unknown}" does not wait. See "moorage tools diff ${server}".`);
    const wanted = held.filter(({ name }) => names.length === 0 || names.includes(name));
    const tools = wanted.map(({ name, digest }) => ({ name, digest }));
    const { accepted } = (await client.post(`${path}/accept`, { tools })) as { accepted: string[] };
    process.stdout.write(
      input.values.json
        ? `${JSON.stringify({ accepted })}\n`
        : `${wanted
            .filter(({ name }) => accepted.includes(name))
            .map(text)
            .join('')}Accepted: ${accepted.length}. Clients see it when they list again.\n`,
    );
    return accepted.length === wanted.length ? 0 : 1;
  },
};

/** The differences for people: what is hidden in them is made visible. */
export function shown(server: string, differences: ToolDifferences): string {
  if (differences === null)
    return `No client has listed the tools of ${server} since it was deployed, or "pins" is off.\n`;
  const { set, held, deployed } = differences;
  const recorded = `Tools of ${server}, deployment ${set.deployment}, recorded ${set.since}.\n`;
  const waiting = held.length === 0 ? 'Nothing waits.\n' : `\nNot as accepted:\n\n${held.map(text).join('')}`;
  const came = deployed.length === 0 ? '' : `\nCame with this deployment:\n\n${deployed.map(text).join('')}`;
  return `${recorded}${waiting}${came}`;
}

const SIGN = { changed: '~', added: '+', removed: '-' } as const;

function text({ name, change, accepted, seen }: ToolDifference): string {
  const [before, after] = [partsOf(accepted), partsOf(seen)];
  const lines = DEFINING.flatMap((part) => {
    if (before[part] === after[part]) return [];
    return [
      ...(before[part] === undefined ? [] : [`    - ${part}: ${before[part]}`]),
      ...(after[part] === undefined ? [] : [`    + ${part}: ${after[part]}`]),
    ];
  });
  const tooLarge = change === 'changed' && lines.length === 0 ? ['    (too large to be shown)'] : [];
  return `${[`${SIGN[change]} ${visible(name)}`, ...lines, ...tooLarge].join('\n')}\n`;
}

/** The parts of a definition, as JSON. */
function partsOf(tool: string | null): Readonly<Record<string, string | undefined>> {
  const value = tool === null ? {} : (JSON.parse(tool) as Record<string, unknown>);
  return Object.fromEntries(
    DEFINING.map((part) => [part, value[part] === undefined ? undefined : visible(JSON.stringify(value[part]))]),
  );
}

const visible = (words: string): string => cleaned(words, 'mark').replaceAll('\n', '⏎');
