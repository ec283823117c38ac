/**
 * Owns the list of clients: what each is called in the table, its version, and the endpoint of a server that it wants.
 */
import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { run as aiSdk } from './ai-sdk.ts';
import type { Run } from './client.ts';
import { run as gemini } from './gemini.ts';
import { run as inspector } from './inspector.ts';
import { type Installed, versionOf } from './install.ts';
import { run as langchain } from './langchain.ts';
import { run as mastra } from './mastra.ts';
import { run as mcpRemote } from './mcp-remote.ts';
import { run as mcporter } from './mcporter.ts';
import { run as openaiAgents } from './openai-agents.ts';
import { python, pythonVersions } from './python.ts';
import { run as sdkV1 } from './sdk-v1.ts';
import { runLegacy, runModern, runProbing, runSse } from './sdk-v2.ts';

export interface Contender {
  readonly name: string;
  readonly version: string;
  readonly run: Run;
  /** The last segment of the URL it is given; the transport of 2024-11-05 has one of its own. */
  readonly endpoint: 'mcp' | 'sse';
}

const at = (endpoint: Contender['endpoint'], name: string, version: string, run: Run): Contender => ({
  name,
  version,
  run,
  endpoint,
});
const fetched = (name: string, from: Installed, run: Run) => at('mcp', name, versionOf(from), run);

const v1 = await dependencyVersion('@modelcontextprotocol/sdk/client');
const v2 = await dependencyVersion('@modelcontextprotocol/client');

export const contenders: readonly Contender[] = [
  fetched('Inspector (`--cli`)', '@modelcontextprotocol/inspector', inspector),
  fetched('mcporter', 'mcporter', mcporter),
  fetched('mcp-remote', 'mcp-remote', mcpRemote),
  fetched('gemini-cli (`mcp list`)', '@google/gemini-cli', gemini),
  fetched('AI SDK', '@ai-sdk/mcp', aiSdk),
  fetched('OpenAI Agents SDK', '@openai/agents', openaiAgents),
  fetched('Mastra', '@mastra/mcp', mastra),
  fetched('LangChain adapters', '@langchain/mcp-adapters', langchain),
  at('mcp', 'TypeScript SDK v1', v1, sdkV1),
  at('mcp', 'TypeScript SDK v2, legacy', v2, runLegacy),
  at('mcp', 'TypeScript SDK v2, probing', v2, runProbing),
  at('mcp', 'TypeScript SDK v2, modern', v2, runModern),
  at('sse', 'TypeScript SDK v2, HTTP+SSE', v2, runSse),
  at('mcp', 'Python SDK v1', pythonVersions.v1, python('v1', 'http')),
  at('mcp', 'Python SDK v2, probing', pythonVersions.v2, python('v2', 'auto')),
  at('mcp', 'Python SDK v2, modern', pythonVersions.v2, python('v2', '2026-07-28')),
  at('sse', 'Python SDK v1, HTTP+SSE', pythonVersions.v1, python('v1', 'sse')),
];

/** `entry` is a path the package exports; the manifest is above it. */
async function dependencyVersion(entry: string): Promise<string> {
  let directory = dirname(createRequire(import.meta.url).resolve(entry));
  while (directory !== dirname(directory)) {
    const text = await readFile(join(directory, 'package.json'), 'utf8').catch(() => '{}');
    const { version } = JSON.parse(text) as { version?: string };
    if (version) return version;
    directory = dirname(directory);
  }
  throw new Error(`${entry} belongs to no package`);
}
