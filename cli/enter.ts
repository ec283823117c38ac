/**
 * Owns how a command of this terminal visits a machine: raw keys and the window's size where a terminal is wanted, signals
 * where none is, and the exit code of what ran there.
 *
 * Invariant: whatever ends this process but SIGKILL, the terminal is left as it was found.
 */
import type { SHELL_SIGNALS } from '../origin/shell/protocol.ts';
import type { Input } from './command.ts';
import { controlOf } from './control.ts';
import { UsageError } from './usage.ts';
import { type Exit, type RemoteVisit, visit } from './visit.ts';

const PASSED_ON = [
  'SIGINT',
  'SIGTERM',
  'SIGHUP',
  'SIGQUIT',
] as const satisfies readonly (typeof SHELL_SIGNALS)[number][];
const NUMBERS: Readonly<Record<string, number>> = { SIGHUP: 1, SIGINT: 2, SIGQUIT: 3, SIGKILL: 9, SIGTERM: 15 };
/** Variables of this terminal that programs in the machine need to draw on it. */
const ABOUT_TERMINAL = ['TERM', 'COLORTERM'] as const;

export interface Wish {
  readonly server: string;
  /** Absent: a login shell. */
  readonly argv?: readonly string[];
  readonly terminal: boolean;
}

/** @returns the exit code of what ran; 128 and its number for a signal, as shells tell it. */
export async function enter(input: Input, { server, argv, terminal }: Wish): Promise<number> {
  const { stdin, stdout, stderr } = process;
  if (terminal && !(stdin.isTTY && stdout.isTTY)) {
    throw new UsageError('Standard input and output are no terminal here. Run a command: moorage exec <server> -- ….');
  }
  const wish = {
    server,
    ...(argv ? { argv: [...argv] } : {}),
    env: terminal ? terminalEnvironment() : {},
    ...(terminal ? { terminal: sizeOf(stdout) } : {}),
  };
  const control = controlOf(input);
  // Whoever read the output has left, such as "head".
  stdout.once('error', () => process.exit(1));
  const there = await visit(control, wish, { stdin, stdout, stderr });
  const undo = terminal ? joinTerminal(there) : passSignals(there);
  try {
    return codeOf(await there.exited);
  } finally {
    undo();
    // A terminal that is still read from would keep this process.
    stdin.destroy();
  }
}

function terminalEnvironment(): Record<string, string> {
  const known = ABOUT_TERMINAL.flatMap((name): [string, string][] => {
    const value = process.env[name];
    return value === undefined ? [] : [[name, value]];
  });
  return { TERM: 'xterm', ...Object.fromEntries(known) };
}

const sizeOf = ({ columns, rows }: NodeJS.WriteStream) => ({ columns: columns || 80, rows: rows || 24 });

function joinTerminal(there: RemoteVisit): () => void {
  const { stdin, stdout } = process;
  const restore = () => {
    if (!stdin.destroyed) stdin.setRawMode(false);
  };
  const resize = () => there.tell({ type: 'resize', ...sizeOf(stdout) });
  // Death by a signal runs no 'exit' listeners: it is turned into an ordinary exit.
  const die = (signal: NodeJS.Signals) => process.exit(128 + (NUMBERS[signal] ?? 0));
  stdin.setRawMode(true);
  process.once('exit', restore);
  for (const signal of PASSED_ON) process.once(signal, die);
  stdout.on('resize', resize);
  // It may have changed while the machine booted.
  resize();
  return () => {
    stdout.off('resize', resize);
    for (const signal of PASSED_ON) process.off(signal, die);
    process.off('exit', restore);
    restore();
  };
}

function passSignals(there: RemoteVisit): () => void {
  const pass = (signal: NodeJS.Signals) => {
    there.tell({ type: 'signal', signal: signal as (typeof PASSED_ON)[number] });
    // Somebody who asks twice wants to get away.
    process.off(signal, pass);
  };
  for (const signal of PASSED_ON) process.on(signal, pass);
  return () => {
    for (const signal of PASSED_ON) process.off(signal, pass);
  };
}

const codeOf = ({ code, signal }: Exit): number => code ?? 128 + (NUMBERS[signal ?? ''] ?? 0);
