/**
 * Runs a host tool to its end. Output is bounded, every run has a deadline, and a failure is a MachineError that names
 * the tool and shows the end of what it said.
 */
import { spawn } from 'node:child_process';
import { access, constants } from 'node:fs/promises';
import { delimiter, join } from 'node:path';
import { MachineError, type MachineErrorCode } from './error.ts';

const MAX_OUTPUT = 4 * 1024 * 1024;
const MAX_DETAIL = 4 * 1024;

export interface CommandOptions {
  /** Code of the MachineError that a failure becomes. */
  code: MachineErrorCode;
  cwd?: string;
  env?: Readonly<Record<string, string | undefined>>;
  timeoutMs?: number;
  /** Called with each line of either output as it comes. */
  onLine?: (line: string) => void;
}

/** Runs `file` (no shell) and resolves with its standard output as text. Rejects with a MachineError. */
export function run(file: string, args: readonly string[], options: CommandOptions): Promise<string> {
  const timeoutMs = options.timeoutMs ?? 120_000;
  return new Promise((resolve, reject) => {
    const child = spawn(file, args, {
      ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
      env: { ...process.env, LC_ALL: 'C', ...options.env },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    let stdout = '';
    let tail = '';
    let rest = '';
    let timedOut = false;
    const timer = setTimeout(() => {
      timedOut = true;
      child.kill('SIGKILL');
    }, timeoutMs);
    const listen = (data: string) => {
      tail = (tail + data).slice(-MAX_DETAIL);
      if (options.onLine === undefined) return;
      const lines = (rest + data).split(/\r?\n/);
      rest = (lines.pop() ?? '').slice(-MAX_DETAIL);
      for (const line of lines) if (line.trim() !== '') options.onLine(line);
    };
    child.stdout.setEncoding('utf8').on('data', (data: string) => {
      if (stdout.length < MAX_OUTPUT) stdout += data;
      listen(data);
    });
    child.stderr.setEncoding('utf8').on('data', listen);
    child.once('error', (cause) => {
      clearTimeout(timer);
      reject(new MachineError(options.code, `cannot run ${file}: ${cause.message}`, { cause }));
    });
    child.once('close', (code, signal) => {
      clearTimeout(timer);
      if (code === 0) {
        resolve(stdout);
        return;
      }
      const why = timedOut ? `did not finish within ${timeoutMs / 1000} s` : `failed (${code ?? signal})`;
      const last = tail.trim().split('\n').slice(-6).join('\n');
      reject(
        new MachineError(options.code, `${[file, ...args.slice(0, 2)].join(' ')} ${why}: ${last}`, { detail: tail }),
      );
    });
  });
}

/** Absolute path of a tool in PATH or the system administrator's folders; undefined when it is not installed. */
export async function findTool(name: string): Promise<string | undefined> {
  const folders = [
    ...(process.env.PATH ?? '').split(delimiter).filter(Boolean),
    '/usr/sbin',
    '/sbin',
    '/usr/bin',
    '/bin',
  ];
  for (const folder of folders) {
    const candidate = join(folder, name);
    try {
      await access(candidate, constants.X_OK);
      return candidate;
    } catch {
      // Not in this folder.
    }
  }
  return undefined;
}

/** As `findTool`, but a missing tool is a MachineError that says how to get it. */
export async function requireTool(name: string, hint: string): Promise<string> {
  const path = await findTool(name);
  if (path === undefined) throw new MachineError('host-tool-missing', `${name} is not installed. ${hint}`);
  return path;
}
