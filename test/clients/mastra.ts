/**
 * The MCP client of Mastra, which names every tool after its server.
 */
import type { Run } from './client.ts';
import { present, textOf } from './client.ts';
import { load } from './install.ts';

interface Mastra {
  MCPClient: new (options: {
    id: string;
    servers: Record<string, { url: URL; requestInit: RequestInit }>;
  }) => {
    listToolsets(): Promise<Record<string, Record<string, { execute(args: object, options: object): unknown }>>>;
    disconnect(): Promise<void>;
  };
}

export const run: Run = async (url, { tool, args }, { headers = {} } = {}) => {
  const { MCPClient } = await load<Mastra>('@mastra/mcp');
  const client = new MCPClient({ id: url, servers: { judged: { url: new URL(url), requestInit: { headers } } } });
  try {
    const { judged = {} } = await client.listToolsets();
    const tools = Object.keys(judged);
    return { tools, text: textOf(await present(judged[tool], tool, tools).execute(args, {})) };
  } finally {
    await client.disconnect();
  }
};
