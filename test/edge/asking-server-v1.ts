/** What `asking-server.ts` is, written with version 1 of the SDK. */
import { McpServer } from '@modelcontextprotocol/sdk/server/mcp.js';
import {
  CreateMessageResultSchema,
  ElicitResultSchema,
  SubscribeRequestSchema,
  UnsubscribeRequestSchema,
} from '@modelcontextprotocol/sdk/types.js';

const text = (value: string) => ({ content: [{ type: 'text' as const, text: value }] });

export default function askingServer(): McpServer {
  const server = new McpServer(
    { name: 'asking-v1', version: '1.0.0' },
    { capabilities: { tools: { listChanged: true }, resources: { subscribe: true }, logging: {} } },
  );
  const subscribed = new Set<string>();
  server.server.setRequestHandler(SubscribeRequestSchema, ({ params }) => {
    subscribed.add(params.uri);
    return {};
  });
  server.server.setRequestHandler(UnsubscribeRequestSchema, ({ params }) => {
    subscribed.delete(params.uri);
    return {};
  });

  server.registerTool('ask_name', {}, async ({ sendRequest }) => {
    const requestedSchema = { type: 'object' as const, properties: { name: { type: 'string' as const } } };
    const params = { message: 'Who are you?', requestedSchema };
    const answer = await sendRequest({ method: 'elicitation/create', params }, ElicitResultSchema);
    return text(`${answer.action} ${JSON.stringify(answer.content ?? null)}`);
  });

  // Asked by the server rather than by the call: its transport is told of no related request.
  server.registerTool('ask_model', {}, async () => {
    const params = {
      messages: [{ role: 'user' as const, content: { type: 'text' as const, text: 'Say' } }],
      maxTokens: 10,
    };
    const answer = await server.server.request({ method: 'sampling/createMessage', params }, CreateMessageResultSchema);
    return text(JSON.stringify(answer.content));
  });

  server.registerTool('subscriptions', {}, () => text([...subscribed].sort().join(' ')));

  server.registerTool('log', {}, async ({ sessionId }) => {
    await server.sendLoggingMessage({ level: 'debug', data: 'in detail' }, sessionId);
    await server.sendLoggingMessage({ level: 'error', data: 'at large' }, sessionId);
    return text('logged');
  });

  server.registerTool('change_list', {}, () => {
    server.sendToolListChanged();
    return text('changed');
  });

  server.registerTool('wait', {}, async ({ sendNotification, signal }) => {
    await sendNotification({ method: 'notifications/message', params: { level: 'error', data: 'waiting' } });
    await new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve()));
    return text('never seen');
  });

  server.registerTool('fail', {}, () => {
    throw new Error('it did not work');
  });

  return server;
}
