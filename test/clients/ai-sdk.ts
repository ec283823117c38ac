/**
 * The MCP client of the AI SDK, as a program uses it before it asks a model anything.
 */
import type { Run } from './client.ts';
import { present, textOf } from './client.ts';
import { load } from './install.ts';

interface AiSdk {
  createMCPClient(config: { transport: { type: 'http'; url: string; headers: Record<string, string> } }): Promise<{
    tools(): Promise<Record<string, { execute(args: unknown, options: object): Promise<unknown> }>>;
    close(): Promise<void>;
  }>;
}

export const run: Run = async (url, { tool, args }, { headers = {} } = {}) => {
  const { createMCPClient } = await load<AiSdk>('@ai-sdk/mcp');
  const client = await createMCPClient({ transport: { type: 'http', url, headers } });
  try {
    const tools = await client.tools();
    const names = Object.keys(tools);
    const found = present(tools[tool], tool, names);
    return { tools: names, text: textOf(await found.execute(args, { toolCallId: 'one', messages: [] })) };
  } finally {
    await client.close();
  }
};
