/**
 * Owns the round that is published: Moorage on this machine with one server at the edge and one in a machine, every
 * client against each and against both as one, and the table in `docs/clients.md` and, where it has the markers, in `README.md`.
 */
import { readFile, rm, writeFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { moorageUp, project } from '../support/moorage.ts';
import type { Contender } from './contenders.ts';
import { runAll, type Target, type Verdict } from './run.ts';
import { runLegacy } from './sdk-v2.ts';
import { between, toMarkdown } from './table.ts';

const root = new URL('../../', import.meta.url);
const everything = '@modelcontextprotocol/server-everything@2026.8.31';
const config = {
  mcpServers: {
    time: { runtime: 'edge', tools: fileURLToPath(new URL('servers/time.ts', root)) },
    everything: { command: 'npx', args: ['-y', everything] },
  },
};

/** Runs `use` against a Moorage of its own whose machine is awake: the table is about clients, not about booting. */
export async function withServers<T>(use: (targets: readonly Target[]) => Promise<T>): Promise<T> {
  const { dir } = project(config);
  const moorage = await moorageUp(dir, { args: ['--yes'] });
  try {
    const targets = targetsAt(moorage.url);
    for (const { url, call } of targets) await runLegacy(url, call);
    return await use(targets);
  } finally {
    await moorage.stop();
    await rm(dir, { recursive: true, force: true });
  }
}

function targetsAt(url: string): Target[] {
  return [
    {
      name: '`time` (edge)',
      url: `${url}/time/mcp`,
      sse: true,
      call: { tool: 'get_current_time', args: { timezone: 'UTC' } },
      expected: /"timezone": "UTC"/,
    },
    {
      name: '`everything` (machine)',
      url: `${url}/everything/mcp`,
      sse: true,
      call: { tool: 'echo', args: { message: 'ahoy' } },
      expected: /^Echo: ahoy$/,
    },
    {
      name: '`/mcp` (both)',
      url: `${url}/mcp`,
      sse: false,
      call: { tool: 'everything__echo', args: { message: 'ahoy' } },
      expected: /^Echo: ahoy$/,
    },
  ];
}

/** Judges `contenders`, and writes the documents when `write` says so. */
export async function publish(
  contenders: readonly Contender[],
  { write, onVerdict }: { write: boolean; onVerdict: (verdict: Verdict) => void },
): Promise<Verdict[]> {
  const verdicts = await withServers((targets) => runAll(contenders, targets, onVerdict));
  if (write) {
    const day = new Date().toISOString().slice(0, 10);
    const how = `Run on ${day} by \`npm run clients\`: Node ${process.versions.node}, \`servers/time.ts\` at the edge, \`${everything}\` in a machine.`;
    await insert('docs/clients.md', `${toMarkdown(verdicts)}\n\n${how}`);
    await insert('README.md', toMarkdown(verdicts, { brief: true }));
  }
  return verdicts;
}

async function insert(path: string, text: string): Promise<void> {
  const file = new URL(path, root);
  const document = await readFile(file, 'utf8').catch(() => '');
  const changed = between(document, text);
  if (changed !== undefined) await writeFile(file, changed);
}
