/**
 * mcporter's command line: one process, and one connection, for each command.
 */
import { runScript } from './child.ts';
import type { Run } from './client.ts';
import { namesOf } from './client.ts';
import { commandOf } from './install.ts';

export const run: Run = async (url, { tool, args }, { headers = {} } = {}) => {
  const ask = async (command: string, ...rest: string[]): Promise<string> => {
    const sent = Object.entries(headers).flatMap(([name, value]) => ['--header', `${name}=${value}`]);
    const server = ['--http-url', url, '--allow-http', '--name', 'judged', ...sent];
    return await runScript(await commandOf('mcporter', 'mcporter'), [command, ...server, ...rest]);
  };
  const listed = await ask('list', '--json');
  const called = await ask('call', '--tool', tool, '--args', JSON.stringify(args), '--output', 'text', '--no-oauth');
  return { tools: namesOf(JSON.parse(listed)), text: called.trim() };
};
