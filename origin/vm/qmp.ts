/**
 * QEMU's monitor protocol over an inherited socket: newline-separated JSON, one reply per command, matched by id.
 * QEMU itself counts as possibly taken over by its guest, so lines and waits are bounded here too.
 * Source: docs/interop/qmp-spec of QEMU.
 */
import type { Duplex } from 'node:stream';
import { MachineError } from './error.ts';

const MAX_LINE = 1024 * 1024;
/** Starting takes QEMU tens of milliseconds; a loaded host may need seconds. */
const START_DEADLINE_MS = 30_000;

interface Waiter {
  resolve: (value: unknown) => void;
  reject: (error: Error) => void;
}

export class Qmp {
  readonly #socket: Duplex;
  readonly #waiters = new Map<number, Waiter>();
  readonly ready: Promise<void>;
  readonly #listeners = new Set<(event: string, data: Record<string, unknown>) => void>();
  #partial = '';
  #lastId = 0;
  #closed: MachineError | undefined;

  /**
   * Takes over the socket; `ready` resolves once QEMU accepts commands and rejects when the socket closes first. Commands
   * may be given before: QEMU reads them in order once it has started, after ours that lets it accept any.
   */
  constructor(socket: Duplex) {
    this.#socket = socket;
    socket.on('data', (data: Buffer) => this.#receive(data));
    socket.on('error', () => undefined);
    socket.once('close', () => {
      const gone = new MachineError('machine-gone', 'QEMU closed its monitor');
      this.#closed = gone;
      for (const waiter of this.#waiters.values()) waiter.reject(gone);
      this.#waiters.clear();
    });
    this.ready = this.command('qmp_capabilities', START_DEADLINE_MS).then(() => undefined);
    this.ready.catch(() => undefined);
  }

  /** Runs a monitor command. Rejects with `qemu-failed`, or `machine-gone` when QEMU ends meanwhile. */
  async command(execute: string, timeoutMs: number, args?: Readonly<Record<string, unknown>>): Promise<unknown> {
    if (this.#closed !== undefined) throw this.#closed;
    this.#lastId += 1;
    const id = this.#lastId;
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#waiters.delete(id);
        reject(new MachineError('qemu-failed', `QEMU did not answer "${execute}" within ${timeoutMs / 1000} s`));
      }, timeoutMs);
      this.#waiters.set(id, {
        resolve: (value) => {
          clearTimeout(timer);
          resolve(value);
        },
        reject: (error) => {
          clearTimeout(timer);
          reject(error);
        },
      });
      this.#socket.write(`${JSON.stringify({ execute, id, ...(args === undefined ? {} : { arguments: args }) })}\n`);
    });
  }

  /** The first event from now on that `wanted` picks, as what that returns. Rejects with `qemu-failed`, `machine-gone`. */
  async event<T>(
    wanted: (event: string, data: Record<string, unknown>) => T | undefined,
    timeoutMs: number,
  ): Promise<T> {
    const found = Promise.withResolvers<T>();
    const listener = (event: string, data: Record<string, unknown>) => {
      const value = wanted(event, data);
      if (value !== undefined) found.resolve(value);
    };
    const timer = setTimeout(
      () => found.reject(new MachineError('qemu-failed', `QEMU said nothing within ${timeoutMs / 1000} s`)),
      timeoutMs,
    );
    const gone = () => found.reject(new MachineError('machine-gone', 'QEMU closed its monitor'));
    this.#socket.once('close', gone);
    this.#listeners.add(listener);
    try {
      return await found.promise;
    } finally {
      clearTimeout(timer);
      this.#socket.off('close', gone);
      this.#listeners.delete(listener);
    }
  }

  #receive(data: Buffer): void {
    const lines = (this.#partial + data.toString('utf8')).split('\n');
    this.#partial = lines.pop() ?? '';
    if (this.#partial.length > MAX_LINE) {
      this.#socket.destroy();
      return;
    }
    for (const line of lines) {
      const message = parse(line);
      if (typeof message?.event === 'string') {
        const said = typeof message.data === 'object' && message.data !== null ? message.data : {};
        for (const listener of this.#listeners) listener(message.event, said as Record<string, unknown>);
      }
      if (typeof message?.id !== 'number') continue;
      const waiter = this.#waiters.get(message.id);
      this.#waiters.delete(message.id);
      const error = message.error as { desc?: unknown } | undefined;
      if (error === undefined) waiter?.resolve(message.return);
      else waiter?.reject(new MachineError('qemu-failed', `QEMU refused a command: ${String(error.desc)}`));
    }
  }
}

function parse(line: string): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(line);
    return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : undefined;
  } catch {
    // The trailing carriage return of an empty line, or noise: nothing waits for it.
    return undefined;
  }
}
