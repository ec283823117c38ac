/**
 * gemini-cli, as far as it goes without a model: `mcp list` connects to each server, within five seconds, and says whether
 * it could.
 */
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { runIn, withHome } from './child.ts';
import type { Run } from './client.ts';
import { commandOf } from './install.ts';

export const run: Run = (url, _call, { headers = {} } = {}) =>
  withHome(async (home) => {
    const script = await commandOf('@google/gemini-cli', 'gemini');
    await mkdir(join(home.path, '.gemini'));
    await writeFile(
      join(home.path, '.gemini', 'settings.json'),
      JSON.stringify({
        mcpServers: { judged: { httpUrl: url, headers } },
        security: { folderTrust: { enabled: false } },
      }),
    );
    const { complained } = await runIn(home, process.execPath, [script, 'mcp', 'list']);
    if (!/judged: .* - Connected/.test(complained)) throw new Error(complained.trim());
    return {};
  });
