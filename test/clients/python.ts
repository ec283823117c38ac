/**
 * The Python SDK, in both of its major versions, each in a virtual environment of its own under the clients' cache.
 * A machine without Python 3.10 has none.
 */
import { execFile } from 'node:child_process';
import { access, mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { runIn, withHome } from './child.ts';
import type { Outcome, Run } from './client.ts';
import { Unavailable } from './client.ts';
import { clientsDir, command } from './install.ts';

export const pythonVersions = { v1: '1.30.0', v2: '2.3.0' } as const;
const interpreters = ['python3', 'python3.13', 'python3.12', 'python3.11', 'python3.10'];
const script = fileURLToPath(new URL('./python-client.py', import.meta.url));

/** `mood` is a transport of v1 or v2 (`sse`), or how v2 chooses its revision. */
export function python(sdk: keyof typeof pythonVersions, mood: 'http' | 'auto' | '2026-07-28' | 'sse'): Run {
  return async (url, { tool, args }, { headers = {} } = {}) => {
    const interpreter = await environmentOf(pythonVersions[sdk]);
    const asked = JSON.stringify({ url, mood, tool, args, headers });
    const { printed } = await withHome((home) => runIn(home, interpreter, [script, asked]));
    return JSON.parse(printed) as Outcome;
  };
}

async function environmentOf(version: string): Promise<string> {
  const folder = join(clientsDir(), `python-${version}`);
  const interpreter = join(folder, 'bin', 'python');
  const ready = await access(join(folder, 'ready')).then(
    () => true,
    () => false,
  );
  if (ready) return interpreter;
  const host = await findPython();
  await rm(folder, { recursive: true, force: true });
  await mkdir(clientsDir(), { recursive: true });
  await command(host, ['-m', 'venv', folder]);
  await command(interpreter, ['-m', 'pip', 'install', '--quiet', `mcp==${version}`]);
  await mkdir(join(folder, 'ready'));
  return interpreter;
}

async function findPython(): Promise<string> {
  for (const name of interpreters) {
    const check = 'import sys, venv; sys.exit(sys.version_info < (3, 10))';
    const ok = await promisify(execFile)(name, ['-c', check]).then(
      () => true,
      () => false,
    );
    if (ok) return name;
  }
  throw new Unavailable('needs Python 3.10');
}
