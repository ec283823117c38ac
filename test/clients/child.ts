/**
 * Owns the processes of the clients that are commands. Each gets a home of its own: they read the configuration of
 * editors and keep tokens there, and neither may leak into a judgement.
 */
import { spawn } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { delimiter, dirname, join } from 'node:path';

const patienceMs = 60_000;

/** The folder and the environment of a user who owns nothing. */
export interface Home {
  readonly path: string;
  readonly env: Readonly<Record<string, string>>;
}

/** Runs `use` with a new home, which is gone afterwards. */
export async function withHome<T>(use: (home: Home) => Promise<T>): Promise<T> {
  const path = await mkdtemp(join(tmpdir(), 'moorage-client-'));
  const search = [dirname(process.execPath), process.env.PATH ?? ''].join(delimiter);
  try {
    return await use({ path, env: { HOME: path, PATH: search, NO_COLOR: '1', CI: '1' } });
  } finally {
    await rm(path, { recursive: true, force: true });
  }
}

/** Runs a script with this Node in a home of its own. @see runIn */
export async function runScript(script: string, args: readonly string[]): Promise<string> {
  return (await withHome((home) => runIn(home, process.execPath, [script, ...args]))).printed;
}

export interface Words {
  readonly printed: string;
  /** What went to standard error; some commands tell everything there. */
  readonly complained: string;
}

/** Runs a command in that home and resolves with what it said, or rejects with why it failed. */
export function runIn({ path, env }: Home, file: string, args: readonly string[]): Promise<Words> {
  return new Promise((resolve, reject) => {
    const child = spawn(file, args, {
      cwd: path,
      env,
      stdio: ['ignore', 'pipe', 'pipe'],
      timeout: patienceMs,
      killSignal: 'SIGKILL',
    });
    let printed = '';
    let complained = '';
    child.stdout.on('data', (chunk: Buffer) => {
      printed += chunk.toString();
    });
    child.stderr.on('data', (chunk: Buffer) => {
      complained += chunk.toString();
    });
    child.once('error', reject);
    child.once('close', (code, signal) => {
      if (code === 0) resolve({ printed, complained });
      else reject(new Error(`exit ${code ?? signal}: ${(complained || printed).trim().slice(-2000)}`));
    });
  });
}
