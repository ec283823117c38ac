/**
 * `node test/clients/main.ts [--client NAME] [--json]` starts Moorage and connects every client, or those whose name contains
 * NAME, to a server at the edge, one in a machine, and both as one. All of them together are written into the documents.
 *
 * `node test/clients/main.ts --url URL [--url URL…] [--tool echo --args '{"message":"hi"}'] [--expect PATTERN] [--token TOKEN]`
 * connects them to other servers. It exits with 0 when every client worked.
 */
import { parseArgs } from 'node:util';
import { contenders } from './contenders.ts';
import { publish } from './publish.ts';
import { runAll, type Verdict } from './run.ts';
import { toMarkdown } from './table.ts';

const { values } = parseArgs({
  options: {
    url: { type: 'string', multiple: true, default: [] },
    client: { type: 'string', default: '' },
    tool: { type: 'string', default: 'echo' },
    args: { type: 'string', default: '{"message":"ahoy"}' },
    expect: { type: 'string', default: '' },
    token: { type: 'string' },
    json: { type: 'boolean', default: false },
  },
});

const chosen = contenders.filter(({ name }) => name.toLowerCase().includes(values.client.toLowerCase()));
const onVerdict = ({ client, server, state, told, era, milliseconds }: Verdict) =>
  console.error(`${state.padEnd(7)} ${client} at ${server}: ${told} (${era ?? 'nothing settled'}, ${milliseconds} ms)`);

const verdicts =
  values.url.length > 0
    ? await runAll(chosen, values.url.map(target), onVerdict, {
        ...(values.token && { headers: { authorization: `Bearer ${values.token}` } }),
      })
    : await publish(chosen, { write: values.client === '', onVerdict });
console.log(values.json ? JSON.stringify(verdicts, null, 2) : toMarkdown(verdicts));
// Frameworks leave timers and sockets behind that would keep this process alive.
process.exit(verdicts.length > 0 && verdicts.every(({ state }) => state !== 'failed') ? 0 : 1);

function target(url: string) {
  const call = { tool: values.tool, args: JSON.parse(values.args) as Record<string, string> };
  return { name: url, url, sse: true, call, expected: new RegExp(values.expect) };
}
