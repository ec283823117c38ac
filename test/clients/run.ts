/**
 * Owns the round of all clients against a set of servers. A client that fails is a row in the table, not an exception.
 */
import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import type { Call, Run, RunOptions } from './client.ts';
import { run as inspector } from './inspector.ts';
import { installClients, versionOf } from './install.ts';
import { run as mcpRemote } from './mcp-remote.ts';
import { run as mcporter } from './mcporter.ts';
import { run as sdkV1 } from './sdk-v1.ts';
import { run as sdkV2, runLegacy as sdkV2Legacy } from './sdk-v2.ts';

interface Contender {
  name: string;
  run: Run;
  version(): Promise<string | undefined>;
}

export const contenders: readonly Contender[] = [
  { name: 'inspector --cli', run: inspector, version: () => versionOf('@modelcontextprotocol/inspector') },
  { name: 'mcporter', run: mcporter, version: () => versionOf('mcporter') },
  { name: 'mcp-remote', run: mcpRemote, version: () => versionOf('mcp-remote') },
  { name: 'SDK v1', run: sdkV1, version: () => dependencyVersion('@modelcontextprotocol/sdk/client') },
  { name: 'SDK v2, probing', run: sdkV2, version: () => dependencyVersion('@modelcontextprotocol/client') },
  { name: 'SDK v2, legacy', run: sdkV2Legacy, version: () => dependencyVersion('@modelcontextprotocol/client') },
];

export interface Verdict {
  client: string;
  version: string | undefined;
  url: string;
  ok: boolean;
  /** The number of tools the client saw. */
  tools: number;
  /** What the call answered, or what went wrong. */
  text: string;
  milliseconds: number;
}

export interface RoundOptions extends RunOptions {
  /** The text the call has to answer; without it any answer will do. */
  expected?: string;
}

/** Clients go one after another, so that a slow one does not slow another down. */
export async function runAll(urls: readonly string[], call: Call, options: RoundOptions = {}): Promise<Verdict[]> {
  await installClients();
  const verdicts: Verdict[] = [];
  for (const contender of contenders) {
    const version = await contender.version();
    for (const url of urls) {
      verdicts.push({ client: contender.name, version, url, ...(await judge(contender, url, call, options)) });
    }
  }
  return verdicts;
}

async function judge(
  { run }: Contender,
  url: string,
  call: Call,
  { expected, ...options }: RoundOptions,
): Promise<Omit<Verdict, 'client' | 'version' | 'url'>> {
  const started = performance.now();
  const took = () => Math.round(performance.now() - started);
  try {
    const { tools, text } = await run(url, call, options);
    const ok = tools.includes(call.tool) && (expected === undefined || text === expected);
    return { ok, tools: tools.length, text, milliseconds: took() };
  } catch (error) {
    return { ok: false, tools: 0, text: String(error), milliseconds: took() };
  }
}

export function toMarkdown(verdicts: readonly Verdict[]): string {
  const urls = [...new Set(verdicts.map(({ url }) => url))];
  const clients = [...new Set(verdicts.map(({ client }) => client))];
  const cell = (client: string, url: string): string => {
    const verdict = verdicts.find((candidate) => candidate.client === client && candidate.url === url);
    if (!verdict) return '';
    if (verdict.ok) return `ok, ${verdict.tools} tools, ${verdict.milliseconds} ms`;
    return `error: ${verdict.text.replaceAll(/\s+/g, ' ').replaceAll('|', '\\|').slice(0, 200)}`;
  };
  const row = (cells: string[]) => `| ${cells.join(' | ')} |`;
  return [
    row(['Client', 'Version', ...urls]),
    row(['---', '---', ...urls.map(() => '---')]),
    ...clients.map((client) => {
      const version = verdicts.find((verdict) => verdict.client === client)?.version ?? '?';
      return row([client, version, ...urls.map((url) => cell(client, url))]);
    }),
  ].join('\n');
}

/** `entry` is a path the package exports; the manifest is above it. */
async function dependencyVersion(entry: string): Promise<string | undefined> {
  let directory = dirname(createRequire(import.meta.url).resolve(entry));
  while (directory !== dirname(directory)) {
    const text = await readFile(join(directory, 'package.json'), 'utf8').catch(() => '{}');
    const { version } = JSON.parse(text) as { version?: string };
    if (version) return version;
    directory = dirname(directory);
  }
  return undefined;
}
