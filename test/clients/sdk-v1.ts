/**
 * The client of the TypeScript SDK v1, on sessions, as most deployed hosts still are.
 */
import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';
import type { Run } from './client.ts';
import { namesOf, textOf } from './client.ts';

export const run: Run = async (url, { tool, args }, { headers = {} } = {}) => {
  const transport = new StreamableHTTPClientTransport(new URL(url), { requestInit: { headers } });
  const client = new Client({ name: 'moorage-judge', version: '1.0.0' });
  try {
    // The SDK's own types disagree about an optional session id under exactOptionalPropertyTypes.
    await client.connect(transport as Parameters<Client['connect']>[0]);
    const tools = namesOf(await client.listTools());
    const text = textOf(await client.callTool({ name: tool, arguments: args }));
    await transport.terminateSession();
    return { tools, text };
  } finally {
    await client.close();
  }
};
