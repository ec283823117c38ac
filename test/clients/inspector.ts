/**
 * The MCP Inspector's command line: one process, and one connection, for each method.
 */
import { runScript } from './child.ts';
import type { Run } from './client.ts';
import { namesOf, textOf } from './client.ts';
import { commandOf } from './install.ts';

export const run: Run = async (url, { tool, args }, { headers = {} } = {}) => {
  const ask = async (...method: string[]): Promise<unknown> => {
    const sent = Object.entries(headers).flatMap(([name, value]) => ['--header', `${name}: ${value}`]);
    const target = ['--cli', url, '--transport', 'http', ...sent, '--method', ...method];
    return JSON.parse(await runScript(await commandOf('@modelcontextprotocol/inspector', 'mcp-inspector'), target));
  };
  const pairs = Object.entries(args).flatMap(([name, value]) => ['--tool-arg', `${name}=${value}`]);
  return {
    tools: namesOf(await ask('tools/list')),
    text: textOf(await ask('tools/call', '--tool-name', tool, ...pairs)),
  };
};
