/**
 * A pseudoterminal of the guest: the kernel's end (`/dev/pts/N`) belongs to one process as its controlling terminal, this
 * end is read and written as two ordinary streams.
 *
 * Node can neither poll such a device without blocking nor unlock or resize it. So two `cat` processes carry the bytes
 * (whoever must wait waits there, never in the agent), and the helper for system calls does the ioctls.
 * States: open -> closed. Closing it is what a line that is cut does: the kernel sends SIGHUP to the session's leader and to
 * what runs in the foreground. Ctrl-C and its like are bytes of the input: the kernel makes signals of them.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, constants, openSync, readFileSync } from 'node:fs';
import type { Readable, Writable } from 'node:stream';
import type { TerminalSize } from './mux.ts';
import { type Ioctl, ioctlsOn } from './syscalls.ts';

/** Of include/uapi/asm-generic/ioctls.h. */
const TIOCSPTLCK = 0x40045431;
const TIOCSWINSZ = 0x5414;
/** Output that follows the end of the process is waited for until this time has passed in silence, in milliseconds. */
const LAST_WORDS_MS = 300;

export class Terminal {
  readonly input: Writable;
  readonly output: Readable;
  readonly #fd: number;
  readonly #path: string;
  readonly #carriers: readonly ChildProcess[];
  #closed = false;

  /** @throws Error when the guest has no more terminals. */
  constructor(size: TerminalSize) {
    this.#fd = openSync('/dev/ptmx', constants.O_RDWR | constants.O_NOCTTY);
    ioctlsOn(this.#fd, [[TIOCSPTLCK, Buffer.alloc(4)], resizing(size)]);
    this.#path = `/dev/pts/${numberOf(this.#fd)}`;
    const reader = spawn('/bin/cat', [], { stdio: [this.#fd, 'pipe', 'ignore'] });
    const writer = spawn('/bin/cat', [], { stdio: ['pipe', this.#fd, 'ignore'] });
    for (const carrier of [reader, writer]) carrier.on('error', () => this.close());
    this.#carriers = [reader, writer];
    this.output = reader.stdout as Readable;
    this.input = writer.stdin as Writable;
    this.input.on('error', () => undefined);
  }

  /**
   * The command that runs `argv` on this terminal. It must be started as the leader of a new session: the terminal that such
   * a process opens first becomes its controlling one, and what runs in its foreground is this process.
   */
  wrap(argv: readonly string[]): string[] {
    return ['/bin/sh', '-c', 'path=$1; shift; exec "$@" 0<>"$path" 1>&0 2>&0', 'terminal', this.#path, ...argv];
  }

  /** The kernel tells the foreground (SIGWINCH). */
  resize(size: TerminalSize): void {
    if (!this.#closed) ioctlsOn(this.#fd, [resizing(size)]);
  }

  /** The process has ended. Something in its background may have the terminal open still, so output may have no end. */
  closeWhenSilent(): void {
    const close = () => (this.output.readableLength > 0 ? timer.refresh() : this.close());
    const timer = setTimeout(close, LAST_WORDS_MS);
    this.output.on('readable', () => timer.refresh());
    this.output.once('close', () => {
      clearTimeout(timer);
      this.close();
    });
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    for (const carrier of this.#carriers) carrier.kill('SIGKILL');
    closeSync(this.#fd);
  }
}

/** `struct winsize`: rows, columns, and two numbers of pixels that nobody uses. */
function resizing({ columns, rows }: TerminalSize): Ioctl {
  const window = Buffer.alloc(8);
  window.writeUInt16LE(rows, 0);
  window.writeUInt16LE(columns, 2);
  return [TIOCSWINSZ, window];
}

/** Which terminal a file is (`tty-index` of proc(5), fdinfo). */
function numberOf(fd: number): string {
  const found = /^tty-index:\s*(\d+)$/m.exec(readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8'));
  if (found?.[1] === undefined) throw new Error('the guest gave no terminal');
  return found[1];
}
