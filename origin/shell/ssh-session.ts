/**
 * Owns one session of a connection over SSH (RFC 4254, section 6): what its client asks for, joined to a visit. A shell, a
 * command, or SFTP; a terminal, its size, a few variables, signals, and how it ended. Nothing is forwarded.
 */
import type { Readable, Writable } from 'node:stream';
import type { ServerChannel, Session } from 'ssh2';
import { toMoorageError } from '../../shared/errors.ts';
import { SFTP_SERVER } from '../images/base.ts';
import type { ProcessSignal, ServerProcess, TerminalSize } from '../vm/driver.ts';
import { SHELL_SIGNALS } from './protocol.ts';
import type { Visits } from './visits.ts';

export interface SessionOptions {
  readonly visits: Pick<Visits, 'begin'>;
  /** The server whose machine is entered. */
  readonly server: string;
  /** Called for everything that is said either way. */
  readonly onActivity: () => void;
}

/** What a client may set: how to speak to it. Anything else could change what a program of the machine does. */
const SAFE_VARIABLE = /^(?:LANG|LC_[A-Z]{1,32}|COLORTERM)$/;
const SAFE_VALUE = /^[A-Za-z0-9@._+:-]{0,64}$/;
/** What OpenSSH tells when it cannot start what was asked for. */
const NOT_STARTED = 255;

export function serveSession(session: Session, options: SessionOptions): void {
  const env: Record<string, string> = {};
  let terminal: TerminalSize | undefined;
  let process: ServerProcess | undefined;
  const begin = (channel: ServerChannel, argv?: readonly string[]) => {
    const wish = { argv, env, terminal };
    serve(channel, wish, options, (started) => {
      process = started;
    }).catch(() => channel.close());
  };
  session.on('pty', (accept, _reject, { cols, rows, term }) => {
    terminal = sizeOf(cols, rows);
    env.TERM = SAFE_VALUE.test(term ?? '') && term ? term : 'xterm';
    accept?.();
  });
  session.on('window-change', (accept, _reject, { cols, rows }) => {
    terminal = sizeOf(cols, rows);
    process?.resize?.(terminal);
    accept?.();
  });
  session.on('env', (accept, reject, { key, val }) => {
    if (!SAFE_VARIABLE.test(key) || !SAFE_VALUE.test(val)) {
      reject?.();
      return;
    }
    env[key] = val;
    accept?.();
  });
  session.on('signal', (accept, reject, { name }) => {
    const signal = SHELL_SIGNALS.find((known) => known === `SIG${name}`);
    if (signal === undefined || process === undefined) {
      reject?.();
      return;
    }
    process.kill(signal satisfies ProcessSignal);
    accept?.();
  });
  session.once('shell', (accept) => begin(accept()));
  session.once('exec', (accept, _reject, { command }) => begin(accept(), ['sh', '-c', command]));
  session.on('subsystem', (accept, reject, { name }) => {
    if (name === 'sftp') begin(accept(), [SFTP_SERVER]);
    else reject?.();
  });
}

/** Numbers of the wire are 32 bits wide, those of the kernel 16. */
function sizeOf(columns: number, rows: number): TerminalSize {
  const bounded = (count: number, otherwise: number) => Math.min(count, 0xffff) || otherwise;
  return { columns: bounded(columns, 80), rows: bounded(rows, 24) };
}

async function serve(
  channel: ServerChannel,
  wish: Parameters<Visits['begin']>[1],
  { visits, server, onActivity }: SessionOptions,
  onStart: (process: ServerProcess) => void,
): Promise<void> {
  const closed = new Promise<'closed'>((resolve) => channel.once('close', () => resolve('closed')));
  channel.on('error', () => undefined);
  channel.pause();
  try {
    const { process, leave } = await visits.begin(server, wish);
    try {
      onStart(process);
      feed(channel, process.stdin, onActivity);
      const outputs = [pump(process.stdout, channel, onActivity), pump(process.stderr, channel.stderr, onActivity)];
      if ((await Promise.race([closed, Promise.all(outputs)])) === 'closed') return;
      const { code, signal } = await process.exited;
      if (code === null) channel.exit((signal ?? 'SIGKILL').replace('SIG', ''), false, '');
      else channel.exit(code);
    } finally {
      leave();
    }
  } catch (error) {
    channel.stderr.write(`moorage: ${toMoorageError(error).message}\r\n`);
    channel.exit(NOT_STARTED);
  }
  channel.end();
}

function feed(channel: ServerChannel, stdin: Writable, onActivity: () => void): void {
  channel.on('data', (data: Buffer) => {
    onActivity();
    // What nobody takes any more is read on, and dropped.
    if (stdin.destroyed || stdin.write(data)) return;
    channel.pause();
    stdin.once('drain', () => channel.resume());
  });
  stdin.once('close', () => channel.resume());
  channel.once('end', () => stdin.end());
  channel.resume();
}

async function pump(from: Readable, to: Writable, onActivity: () => void): Promise<void> {
  for await (const chunk of from) {
    onActivity();
    if (!to.write(chunk)) await new Promise<void>((resolve) => to.once('drain', resolve));
  }
}
