/**
 * mcp-remote: the bridge that gives a URL to clients that only start processes. An SDK client speaks to it over stdio.
 */
import { Client } from '@modelcontextprotocol/client';
import { StdioClientTransport } from '@modelcontextprotocol/client/stdio';
import { withHome } from './child.ts';
import type { Run } from './client.ts';
import { namesOf, textOf } from './client.ts';
import { commandOf } from './install.ts';

export const run: Run = (url, { tool, args }, { headers = {} } = {}) =>
  withHome(async ({ path, env }) => {
    const sent = Object.entries(headers).flatMap(([name, value]) => ['--header', `${name}:${value}`]);
    const transport = new StdioClientTransport({
      command: process.execPath,
      args: [await commandOf('mcp-remote', 'mcp-remote'), url, '--allow-http', '--transport', 'http-only', ...sent],
      cwd: path,
      env: { ...env },
      stderr: 'ignore',
    });
    const client = new Client({ name: 'moorage-judge', version: '1.0.0' });
    try {
      await client.connect(transport);
      const tools = namesOf(await client.listTools());
      return { tools, text: textOf(await client.callTool({ name: tool, arguments: args })) };
    } finally {
      await client.close();
    }
  });
