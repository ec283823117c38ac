/**
 * Owns the processes of the clients that are commands. Each gets a home of its own: they read the configuration of
 * editors and keep tokens there, and neither may leak into a judgement.
 */
import { spawn } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { delimiter, dirname, join } from 'node:path';

const patienceMs = 60_000;

/** Runs `use` with the environment of a user who owns nothing, in that user's home. */
export async function withHome<T>(use: (home: string, env: Record<string, string>) => Promise<T>): Promise<T> {
  const home = await mkdtemp(join(tmpdir(), 'moorage-client-'));
  const path = [dirname(process.execPath), process.env.PATH ?? ''].join(delimiter);
  try {
    return await use(home, { HOME: home, PATH: path, NO_COLOR: '1', CI: '1' });
  } finally {
    await rm(home, { recursive: true, force: true });
  }
}

/** Runs a script with this Node and resolves with what it printed, or rejects with why it failed. */
export function runScript(script: string, args: string[]): Promise<string> {
  return withHome(
    (home, env) =>
      new Promise((resolve, reject) => {
        const child = spawn(process.execPath, [script, ...args], {
          cwd: home,
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
          if (code === 0) resolve(printed);
          else reject(new Error(`exit ${code ?? signal}: ${(complained || printed).trim().slice(-2000)}`));
        });
      }),
  );
}
