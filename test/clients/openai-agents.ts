/**
 * The MCP server object of the OpenAI Agents SDK, as an agent holds it.
 */
import type { Run } from './client.ts';
import { namesOf, textOf } from './client.ts';
import { load } from './install.ts';

interface Agents {
  MCPServerStreamableHttp: new (options: {
    url: string;
    name: string;
    requestInit: RequestInit;
  }) => {
    connect(): Promise<void>;
    listTools(): Promise<{ name: string }[]>;
    callTool(tool: string, args: object): Promise<unknown[]>;
    close(): Promise<void>;
  };
}

export const run: Run = async (url, { tool, args }, { headers = {} } = {}) => {
  const { MCPServerStreamableHttp } = await load<Agents>('@openai/agents');
  const server = new MCPServerStreamableHttp({ url, name: 'judged', requestInit: { headers } });
  try {
    await server.connect();
    const tools = namesOf({ tools: await server.listTools() });
    return { tools, text: textOf({ content: await server.callTool(tool, args) }) };
  } finally {
    await server.close();
  }
};
