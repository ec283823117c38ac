/**
 * gemini-cli, as far as it goes without a model: `mcp list` connects to each server, pings it, and says whether it could.
 */
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { runIn, withHome } from './child.ts';
import type { Run } from './client.ts';
import { commandOf } from './install.ts';

/** Without it a server has five seconds, and an emulated machine needs about that to start another process. */
const patienceMs = 30_000;

export const run: Run = (url, _call, { headers = {} } = {}) =>
  withHome(async (home) => {
    const script = await commandOf('@google/gemini-cli', 'gemini');
    await mkdir(join(home.path, '.gemini'));
    await writeFile(
      join(home.path, '.gemini', 'settings.json'),
      JSON.stringify({
        mcpServers: { judged: { httpUrl: url, headers, timeout: patienceMs } },
        security: { folderTrust: { enabled: false } },
      }),
    );
    const { complained } = await runIn(home, process.execPath, [script, 'mcp', 'list']);
    if (!/judged: .* - Connected/.test(complained)) throw new Error(complained.trim());
    return {};
  });
