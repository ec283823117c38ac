/** An edge server for tests that needs its client in the middle of calls, and state from before them. */
import { McpServer } from '@modelcontextprotocol/server';
import { z } from 'zod';

const text = (value: string) => ({ content: [{ type: 'text' as const, text: value }] });

export default function askingServer(): McpServer {
  const server = new McpServer(
    { name: 'asking', version: '1.0.0' },
    { capabilities: { tools: { listChanged: true }, resources: { subscribe: true }, logging: {} } },
  );
  const subscribed = new Set<string>();
  server.server.setRequestHandler('resources/subscribe', ({ params }) => {
    subscribed.add(params.uri);
    return {};
  });
  server.server.setRequestHandler('resources/unsubscribe', ({ params }) => {
    subscribed.delete(params.uri);
    return {};
  });

  server.registerTool('ask_name', { inputSchema: z.object({}) }, async (_, context) => {
    const answer = await context.mcpReq.elicitInput({
      message: 'Who are you?',
      requestedSchema: { type: 'object', properties: { name: { type: 'string' } }, required: ['name'] },
    });
    return text(`${answer.action} ${JSON.stringify(answer.content ?? null)}`);
  });

  server.registerTool('ask_model', { inputSchema: z.object({}) }, async (_, context) => {
    const answer = await context.mcpReq.requestSampling({
      messages: [{ role: 'user', content: { type: 'text', text: 'Say something' } }],
      maxTokens: 10,
    });
    return text(JSON.stringify(answer.content));
  });

  server.registerTool('subscriptions', { inputSchema: z.object({}) }, () => text([...subscribed].sort().join(' ')));

  server.registerTool('log', { inputSchema: z.object({}) }, async (_, context) => {
    await context.mcpReq.log('debug', 'in detail');
    await context.mcpReq.log('error', 'at large');
    return text('logged');
  });

  server.registerTool('change_list', { inputSchema: z.object({}) }, () => {
    server.sendToolListChanged();
    return text('changed');
  });

  server.registerTool('ask_then_change', { inputSchema: z.object({}) }, async (_, context) => {
    const requestedSchema = { type: 'object' as const, properties: {} };
    await context.mcpReq.elicitInput({ message: 'Shall I?', requestedSchema });
    server.sendToolListChanged();
    return text('told');
  });

  // Ends only when it is cancelled; says once that it has begun.
  server.registerTool('wait', { inputSchema: z.object({}) }, async (_, context) => {
    await context.mcpReq.notify({ method: 'notifications/message', params: { level: 'error', data: 'waiting' } });
    await new Promise<void>((resolve) => context.mcpReq.signal.addEventListener('abort', () => resolve()));
    return text('never seen');
  });

  server.registerTool('fail', { inputSchema: z.object({}) }, () => {
    throw new Error('it did not work');
  });

  return server;
}
