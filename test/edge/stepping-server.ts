/** An edge server for tests whose calls take their time and say how far they are. */
import { McpServer } from '@modelcontextprotocol/server';
import { z } from 'zod';

const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

export default function steppingServer(): McpServer {
  const server = new McpServer({ name: 'stepping', version: '1.0.0' }, { capabilities: { logging: {} } });
  const steps = { steps: z.number(), ms: z.number(), bytes: z.number().default(0) };
  server.registerTool('step', { inputSchema: z.object(steps) }, async ({ steps: count, ms, bytes }, context) => {
    for (let step = 1; step <= count; step++) {
      await context.mcpReq.notify({ method: 'notifications/message', params: { level: 'error', data: step } });
      await pause(ms);
    }
    return { content: [{ type: 'text', text: `done${'x'.repeat(bytes)}` }] };
  });
  return server;
}
