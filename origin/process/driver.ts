/**
 * Owns the runtime `process`: servers as plain children of the agent, on the owner's machine, without isolation.
 *
 * It offers the same `RunningMachine` as a microVM, so that nothing above it knows the difference. What is lost is said
 * once, loudly, by whoever chooses it: a server sees the owner's files and network and has no limits.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import type {
  MachineEnd,
  ProcessExit,
  ProcessSignal,
  ProcessSpec,
  RunningMachine,
  ServerProcess,
} from '../vm/driver.ts';
import { MachineError } from '../vm/error.ts';

/** Variables of the agent's own environment that a server needs; nothing else of it is passed on. */
const INHERITED = ['PATH', 'HOME', 'LANG', 'LC_ALL', 'TZ', 'TMPDIR', 'USER'] as const;

/** The longest wait for children to end when the machine is stopped, in milliseconds. */
const STOP_GRACE_MS = 2_000;

/** A machine whose processes are children of this one. It "boots" at once and never ends by itself. */
export function processMachine(): RunningMachine {
  const children = new Set<ChildProcess>();
  let end: (end: MachineEnd) => void = () => undefined;
  const gone = new Promise<MachineEnd>((resolve) => {
    end = resolve;
  });
  const killAll = (signal: 'SIGTERM' | 'SIGKILL') => {
    for (const child of children) signalGroup(child, signal);
  };
  return {
    accelerator: 'none',
    gone,
    spawn: (spec) => start(spec, children),
    // What a process wrote is in the host's page cache: it survives the process and the agent.
    sync: () => Promise.resolve(),
    stop: async () => {
      killAll('SIGTERM');
      const exits = [...children].map((child) => new Promise<void>((resolve) => child.once('exit', () => resolve())));
      const deadline = new Promise<void>((resolve) => setTimeout(resolve, STOP_GRACE_MS).unref());
      await Promise.race([Promise.all(exits), deadline]);
      killAll('SIGKILL');
      end({ reason: 'stopped', consoleTail: '' });
    },
    kill: () => {
      killAll('SIGKILL');
      end({ reason: 'killed', consoleTail: '' });
    },
  };
}

function start(spec: ProcessSpec, children: Set<ChildProcess>): Promise<ServerProcess> {
  const [command, ...args] = spec.argv;
  if (command === undefined) return Promise.reject(new MachineError('spawn-failed', 'The server has no command.'));
  mkdirSync(spec.cwd, { recursive: true, mode: 0o700 });
  const env: Record<string, string> = {};
  for (const name of INHERITED) {
    const value = process.env[name];
    if (value !== undefined) env[name] = value;
  }
  env.PATH = `${env.PATH ?? ''}${delimiter}${join(process.execPath, '..')}`;
  // A group of its own, so that a wrapper such as npx takes its child along when it is ended.
  const child = spawn(command, args, { cwd: spec.cwd, env: { ...env, ...spec.env }, stdio: 'pipe', detached: true });
  children.add(child);
  const exited = new Promise<ProcessExit>((resolve) => {
    child.once('exit', (code, signal) => resolve({ code, signal }));
    child.once('error', () => resolve({ code: null, signal: 'SIGKILL' }));
  });
  void exited.then(() => children.delete(child));
  return new Promise((resolve, reject) => {
    child.once('spawn', () => {
      resolve({
        stdin: child.stdin,
        stdout: child.stdout,
        stderr: child.stderr,
        exited,
        kill: (signal = 'SIGTERM') => signalGroup(child, signal),
      });
    });
    child.once('error', (error: NodeJS.ErrnoException) => {
      const why =
        error.code === 'ENOENT' ? `"${command}" was not found: install it or correct "command"` : String(error.code);
      reject(new MachineError('spawn-failed', `The server could not be started: ${why}.`));
    });
  });
}

function signalGroup(child: ChildProcess, signal: ProcessSignal): void {
  if (child.pid === undefined || child.exitCode !== null || child.signalCode !== null) return;
  try {
    process.kill(-child.pid, signal);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
  }
}
