/**
 * `node test/clients/main.ts --url URL [--url URL…] [--tool echo --args '{"message":"hi"}'] [--expect TEXT] [--token TOKEN] [--json]`
 * connects every client to every server, prints a Markdown table and exits 0 when all of them worked.
 */
import { parseArgs } from 'node:util';
import { runAll, toMarkdown } from './run.ts';

const { values } = parseArgs({
  options: {
    url: { type: 'string', multiple: true, default: [] },
    tool: { type: 'string', default: 'echo' },
    args: { type: 'string', default: '{"message":"ahoy"}' },
    expect: { type: 'string' },
    token: { type: 'string' },
    json: { type: 'boolean', default: false },
  },
});

const call = { tool: values.tool, args: JSON.parse(values.args) };
const verdicts = await runAll(values.url, call, {
  ...(values.expect !== undefined && { expected: values.expect }),
  ...(values.token && { headers: { authorization: `Bearer ${values.token}` } }),
});
console.log(values.json ? JSON.stringify(verdicts, null, 2) : toMarkdown(verdicts));
process.exitCode = verdicts.length > 0 && verdicts.every(({ ok }) => ok) ? 0 : 1;
