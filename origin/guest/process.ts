/**
 * One process of the guest: its child, its three channels and their credits.
 *
 * States: running -> exited -> closed. `exit` is sent as soon as the child ends; its output drains after that as far as
 * the host's credit allows, and the stream is closed (forgotten) once both outputs have ended. The child leads a process
 * group; whatever is left of the group is killed with its leader, so no orphan keeps the pipes or the machine busy.
 * With a terminal the input and the standard output are that terminal's, and there is no standard error.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import type { Readable, Writable } from 'node:stream';
import type { Gate } from './gate.ts';
import {
  CHANNEL,
  type Channel,
  encodeCredit,
  encodeEnd,
  encodeFrame,
  encodeJson,
  FRAME,
  FrameError,
  type FrameType,
  ReceiveWindow,
  SendWindow,
  type TerminalSize,
} from './mux.ts';
import { amongServers } from './servers-group.ts';
import { Terminal } from './terminal.ts';

export const KEEP_COMPILED_OPTIONS = '--require=/opt/moorage/keep-compiled.cjs';
export const GUEST_PATH = '/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin';

const BASE_ENV = {
  PATH: GUEST_PATH,
  HOME: '/root',
  USER: 'root',
  LANG: 'C.UTF-8',
  TMPDIR: '/tmp',
  // Compiled JavaScript is kept on the machine's disk, so the next start of the same server skips compilation. Node
  // writes it only when a program exits by itself, which servers do not: keep-compiled.cjs writes it soon after the start.
  NODE_COMPILE_CACHE: '/var/cache/node-compile',
  NODE_OPTIONS: KEEP_COMPILED_OPTIONS,
};

const SIGHUP = 1;

interface Output {
  stream: Readable;
  type: FrameType;
  channel: Channel;
  window: SendWindow;
  ended: boolean;
}

export class GuestProcess {
  readonly #id: number;
  readonly #port: Gate;
  readonly #child: ChildProcess;
  readonly #terminal: Terminal | undefined;
  readonly #stdin: Writable | null;
  readonly #outputs: Output[] = [];
  #input = new ReceiveWindow();
  readonly #onClosed: () => void;
  #exited = false;

  /** Starts the process of an `open` frame; throws a plain Error whose message is for the user. */
  constructor(id: number, port: Gate, spec: Record<string, unknown>, onClosed: () => void) {
    const { argv, env, cwd, terminal } = parseSpec(spec);
    this.#id = id;
    this.#port = port;
    this.#onClosed = onClosed;
    mkdirSync(cwd, { recursive: true });
    this.#terminal = terminal && new Terminal(terminal);
    const [file = '', ...args] = this.#terminal?.wrap(argv) ?? argv;
    const stdio = this.#terminal ? 'ignore' : 'pipe';
    this.#child = amongServers(() => spawn(file, args, { cwd, env: { ...BASE_ENV, ...env }, detached: true, stdio }));
    this.#stdin = this.#terminal?.input ?? this.#child.stdin;
    const stdout = this.#terminal?.output ?? this.#child.stdout;
    const { stderr } = this.#child;
    // A process may close its stdin or die while it is written to: later bytes are discarded, the exit tells the rest.
    this.#stdin?.on('error', () => undefined);
    this.#child.once('error', (error) => this.#failed(error));
    this.#child.once('spawn', () => port.send(encodeFrame(FRAME.opened, id)));
    this.#child.once('exit', (code, signal) => this.#onExit(code, signal));
    if (stdout) this.#pump(stdout, FRAME.stdout, CHANNEL.stdout);
    if (stderr) this.#pump(stderr, FRAME.stderr, CHANNEL.stderr);
    else this.#child.once('spawn', () => port.send(encodeEnd(id, CHANNEL.stderr)));
  }

  write(data: Buffer): void {
    const window = this.#input;
    window.receive(data.length);
    const done = () => {
      const credit = window.consume(data.length);
      if (credit > 0 && !this.#exited && window === this.#input)
        this.#port.send(encodeCredit(this.#id, CHANNEL.stdin, credit));
    };
    if (this.#stdin?.writable) this.#stdin.write(data, done);
    else done();
  }

  /** A terminal's input has no end of its own: whoever reads it is told by a character (Ctrl-D), or by the hangup. */
  endInput(): void {
    if (!this.#terminal) this.#stdin?.end();
  }

  resize(size: TerminalSize): void {
    this.#terminal?.resize(size);
  }

  grant(channel: Channel, bytes: number): void {
    const output = this.#outputs.find((candidate) => candidate.channel === channel);
    if (output === undefined) throw new FrameError('credit for a channel that does not send');
    output.window.grant(bytes);
    this.#drain(output);
  }

  /** The host's end is a new one: nothing that it was sent or gave counts any more. */
  reset(): void {
    this.#input = new ReceiveWindow();
    for (const output of this.#outputs) output.window = new SendWindow();
  }

  /** Continues after the port was congested. */
  resume(): void {
    for (const output of this.#outputs) this.#drain(output);
  }

  /** Signals the whole process group. SIGHUP hangs a terminal up, which reaches more than that group. */
  signal(number: number): void {
    if (this.#terminal && number === SIGHUP) {
      this.#terminal.close();
      return;
    }
    const pid = this.#child.pid;
    if (pid === undefined) return;
    try {
      process.kill(-pid, number);
    } catch {
      // ESRCH: the group is already gone, which is what the signal was for.
    }
  }

  #pump(stream: Readable, type: FrameType, channel: Channel): void {
    const output: Output = { stream, type, channel, window: new SendWindow(), ended: false };
    this.#outputs.push(output);
    stream.on('readable', () => this.#drain(output));
    const end = () => this.#endOutput(output);
    stream.once('end', end);
    stream.once('error', end);
    stream.once('close', end);
  }

  #drain(output: Output): void {
    const { stream, window } = output;
    while (!this.#port.congested && window.available > 0 && stream.readableLength > 0) {
      const size = window.take(stream.readableLength);
      const chunk: Buffer | null = stream.read(size);
      if (chunk === null) return;
      this.#port.send(encodeFrame(output.type, this.#id, chunk));
    }
    // An empty read is what makes a finished stream say so.
    if (stream.readableLength === 0) stream.read(0);
  }

  #endOutput(output: Output): void {
    if (output.ended) return;
    output.ended = true;
    this.#port.send(encodeEnd(this.#id, output.channel));
    this.#closeWhenDone();
  }

  #onExit(code: number | null, signal: string | null): void {
    this.#exited = true;
    this.signal(9);
    this.#stdin?.destroy();
    this.#port.send(encodeJson(FRAME.exit, this.#id, { code, signal }));
    this.#terminal?.closeWhenSilent();
    this.#closeWhenDone();
  }

  #failed(error: Error): void {
    if (this.#child.pid !== undefined) return;
    this.#exited = true;
    this.#terminal?.close();
    for (const output of this.#outputs) output.ended = true;
    this.#port.send(encodeJson(FRAME.failed, this.#id, { message: explain(error) }));
    this.#onClosed();
  }

  #closeWhenDone(): void {
    if (this.#exited && this.#outputs.every((output) => output.ended)) this.#onClosed();
  }
}

interface Spec {
  argv: string[];
  env: Record<string, string>;
  cwd: string;
  terminal: TerminalSize | undefined;
}

function explain(error: NodeJS.ErrnoException): string {
  return error.code === 'EAGAIN' ? 'the machine runs as many processes as "limits.pids" allows' : error.message;
}

function parseSpec(spec: Record<string, unknown>): Spec {
  const { argv, env, cwd, terminal } = spec;
  if (!Array.isArray(argv) || argv.length === 0 || !argv.every((part) => typeof part === 'string')) {
    throw new Error('argv must be a non-empty list of strings');
  }
  if (typeof cwd !== 'string' || !cwd.startsWith('/')) throw new Error('cwd must be an absolute path');
  if (typeof env !== 'object' || env === null) throw new Error('env must be an object of strings');
  return { argv, env: env as Record<string, string>, cwd, terminal: terminal as TerminalSize | undefined };
}
