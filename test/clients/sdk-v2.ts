/**
 * The client of the TypeScript SDK v2 in its two moods: `run` probes with `server/discover` and falls back to
 * `initialize`, `runLegacy` does not probe, which is the SDK's default.
 */
import { Client, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';
import type { Run } from './client.ts';
import { namesOf, textOf } from './client.ts';

function runWith(mode: 'auto' | 'legacy'): Run {
  return async (url, { tool, args }, { headers = {} } = {}) => {
    const transport = new StreamableHTTPClientTransport(new URL(url), { requestInit: { headers } });
    const client = new Client({ name: 'moorage-judge', version: '1.0.0' }, { versionNegotiation: { mode } });
    try {
      await client.connect(transport);
      const tools = namesOf(await client.listTools());
      const text = textOf(await client.callTool({ name: tool, arguments: args }));
      await transport.terminateSession();
      return { tools, text };
    } finally {
      await client.close();
    }
  };
}

export const run = runWith('auto');
export const runLegacy = runWith('legacy');
