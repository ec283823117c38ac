/**
 * Owns the server that does everything: each tool, prompt and resource the conformance suite looks for, in both eras
 * and over any transport. One instance serves one connection or one request and keeps nothing between them. It uses
 * no API of Node, so the same code runs in a microVM, in a Worker and directly on this machine.
 */
import { McpServer } from '@modelcontextprotocol/server';
import { registerAsking } from './fixture/asking.ts';
import { registerPrompts } from './fixture/prompts.ts';
import { registerResources } from './fixture/resources.ts';
import { registerRounds } from './fixture/rounds.ts';
import { requestState } from './fixture/state.ts';
import { registerTools } from './fixture/tools.ts';

export function createFixture(): McpServer {
  const server = new McpServer(
    { name: 'moorage-conformance-fixture', version: '1.0.0' },
    {
      capabilities: {
        tools: { listChanged: true },
        prompts: { listChanged: true },
        resources: { subscribe: true, listChanged: true },
        logging: {},
        completions: {},
      },
      cacheHints: {
        'tools/list': { ttlMs: 60_000, cacheScope: 'public' },
        'prompts/list': { ttlMs: 60_000, cacheScope: 'public' },
        'resources/list': { ttlMs: 60_000, cacheScope: 'private' },
      },
      requestState: { verify: requestState.verify },
    },
  );
  registerTools(server);
  registerAsking(server);
  registerRounds(server);
  registerPrompts(server);
  registerResources(server);
  return server;
}
