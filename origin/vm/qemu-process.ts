/**
 * One QEMU process: its monitor, its console, its end of the guest's channel, and the lock of its folder.
 *
 * States: running -> ended. Whoever ends it states the reason first, and the first reason wins. A machine that sleeps and
 * wakes has one of these after another, never two at a time.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, openSync } from 'node:fs';
import type { Duplex } from 'node:stream';
import { ALIVE_MARKER } from '../images/initrd.ts';
import { RingBuffer } from './console.ts';
import { claim, release } from './disk.ts';
import { Qmp } from './qmp.ts';

/** How a QEMU is started. */
export interface QemuCommand {
  readonly argv: readonly string[];
  /** Files that it inherits, for reading, from descriptor FIRST_FILE on. */
  readonly files: readonly string[];
  /** It waits for the state of a sleeping machine. */
  readonly incoming: boolean;
  /** Called with its process id before it does anything; what it returns is called when it has ended. */
  readonly confine?: ((pid: number) => () => void) | undefined;
}

const CONSOLE_BYTES = 64 * 1024;
const TAIL_BYTES = 16 * 1024;

export class QemuProcess {
  readonly pid: number;
  readonly qmp: Qmp;
  /** The guest's channel, not read by anyone yet. */
  readonly guest: Duplex;
  /** Resolves with why it ended. */
  readonly ended: Promise<string>;
  /** Resolves once the guest's kernel runs programs. */
  readonly alive: Promise<void>;
  isAlive = false;
  readonly #child: ChildProcess;
  readonly #incoming: Duplex | undefined;
  readonly #console = new RingBuffer(CONSOLE_BYTES);
  readonly #complaints = new RingBuffer(TAIL_BYTES);
  #reason: string | undefined;

  /** Starts QEMU on a folder that no other one uses. */
  constructor(dir: string, { argv, files, incoming, confine }: QemuCommand) {
    const [file = '', ...args] = argv;
    const opened: number[] = [];
    try {
      for (const path of files) opened.push(openSync(path, 'r'));
      this.#child = spawn(file, args, {
        cwd: dir,
        // A session of its own: Ctrl-C at the agent's terminal is for the agent, which puts machines to sleep.
        detached: true,
        stdio: ['ignore', 'pipe', 'pipe', 'pipe', 'pipe', incoming ? 'pipe' : 'ignore', ...opened],
      });
    } finally {
      for (const descriptor of opened) closeSync(descriptor);
    }
    this.pid = this.#child.pid ?? 0;
    let unconfine: (() => void) | undefined;
    try {
      if (this.pid !== 0) {
        claim(dir, this.pid);
        unconfine = confine?.(this.pid);
      }
    } catch (error) {
      this.#child.kill('SIGKILL');
      throw error;
    }
    const alive = Promise.withResolvers<void>();
    this.alive = alive.promise;
    let head = '';
    this.#child.stdout?.on('data', (data: Buffer) => {
      this.#console.push(data);
      if (this.isAlive) return;
      head = (head + data.toString('latin1')).slice(-1024);
      this.isAlive = head.includes(ALIVE_MARKER);
      if (this.isAlive) alive.resolve();
    });
    this.#child.stderr?.on('data', (data: Buffer) => this.#complaints.push(data));
    this.qmp = new Qmp(this.#child.stdio[3] as Duplex);
    this.guest = this.#child.stdio[4] as Duplex;
    this.guest.on('error', () => undefined);
    const [, , , , , incomingState] = this.#child.stdio as readonly (Duplex | null | undefined)[];
    incomingState?.on('error', () => undefined);
    this.#incoming = incomingState ?? undefined;
    this.ended = this.#watch(dir, unconfine);
  }

  /** Writes the state of a machine's devices to descriptor 5, for one that waits for it. */
  sendState(devices: Buffer): void {
    this.#incoming?.end(devices);
  }

  /** Ends it at once. Resolves when it is gone. */
  async kill(reason: string): Promise<void> {
    this.because(reason);
    this.#child.kill('SIGKILL');
    await this.ended;
  }

  /** States why it will end. */
  because(reason: string): void {
    this.#reason ??= reason;
  }

  /** Whether another QEMU holds one of its files. */
  get isLockedOut(): boolean {
    return /lock/.test(this.#complaints.tail(TAIL_BYTES));
  }

  consoleTail(): string {
    return this.#console.tail(TAIL_BYTES);
  }

  #watch(dir: string, unconfine: (() => void) | undefined): Promise<string> {
    return new Promise((resolve) => {
      const settle = (what: string) => {
        release(dir);
        unconfine?.();
        resolve(this.#reason ?? what);
      };
      this.#child.once('error', (error) => settle(`QEMU cannot be started: ${error.message}`));
      this.#child.once('exit', (code, signal) => {
        // Power-off from inside is a clean exit of QEMU; the pipes may still hold the console's last lines.
        setImmediate(() => settle(code === 0 ? 'the guest powered off' : this.#crashReason(code, signal)));
      });
    });
  }

  #crashReason(code: number | null, signal: string | null): string {
    const complaint = this.#complaints.tail(1000).trim().split('\n').at(-1);
    return `QEMU ended (${code ?? signal})${complaint ? `: ${complaint}` : ''}`;
  }
}
