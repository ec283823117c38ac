/**
 * LangChain's adapters, which turn the tools of MCP servers into its own.
 */
import type { Run } from './client.ts';
import { namesOf, present } from './client.ts';
import { load } from './install.ts';

interface Adapters {
  MultiServerMCPClient: new (config: {
    mcpServers: Record<string, { transport: 'http'; url: string; headers: Record<string, string> }>;
  }) => {
    getTools(): Promise<{ name: string; invoke(args: object): Promise<unknown> }[]>;
    close(): Promise<void>;
  };
}

export const run: Run = async (url, { tool, args }, { headers = {} } = {}) => {
  const { MultiServerMCPClient } = await load<Adapters>('@langchain/mcp-adapters');
  const client = new MultiServerMCPClient({ mcpServers: { judged: { transport: 'http', url, headers } } });
  try {
    const tools = await client.getTools();
    const names = namesOf({ tools });
    const found = tools.find(({ name }) => name === tool);
    return { tools: names, text: String(await present(found, tool, names).invoke(args)) };
  } finally {
    await client.close();
  }
};
