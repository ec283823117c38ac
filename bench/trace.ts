/**
 * When the steps of a machine's life began and ended, watched from outside: the methods of the driver's own classes are
 * wrapped in this process, so that what is measured is the product as it is.
 */
import { AsyncLocalStorage } from 'node:async_hooks';
import { GuestChannel } from '../origin/vm/channel.ts';
import { QemuDriver } from '../origin/vm/qemu.ts';
import { QemuMachine } from '../origin/vm/qemu-machine.ts';
import { QemuProcess } from '../origin/vm/qemu-process.ts';
import { Qmp } from '../origin/vm/qmp.ts';
import { Snapshot } from '../origin/vm/snapshot.ts';

export interface Span {
  readonly name: string;
  /** Milliseconds of `performance.now`. */
  readonly began: number;
  readonly ended: number;
  readonly value: unknown;
}

/** Steps in the order of their ends. */
export class Spans {
  #spans: Span[] = [];

  add(span: Span): void {
    this.#spans.push(span);
  }

  clear(): void {
    this.#spans = [];
  }

  /** The last step of this name, if there was one. */
  find(name: string): Span | undefined {
    return this.#spans.findLast((span) => span.name === name);
  }

  /** @throws Error when there was none. */
  last(name: string): Span {
    const found = this.find(name);
    if (!found) throw new Error(`Nothing was seen of the step "${name}": has the driver changed?`);
    return found;
  }

  took(name: string): number {
    const { began, ended } = this.last(name);
    return ended - began;
  }
}

/** The steps since the last `clear`, but those of what runs `apart`. */
export class Trace extends Spans {
  readonly #apart = new AsyncLocalStorage<Spans>();

  constructor() {
    super();
    this.#watch(QemuDriver.prototype, 'copy', () => 'copy');
    this.#watch(QemuMachine.prototype, 'boot', () => 'boot');
    this.#watch(QemuMachine.prototype, 'fork', () => 'fork');
    this.#watch(QemuMachine.prototype, 'hibernate', () => 'hibernate');
    this.#watch(QemuProcess.prototype, 'kill', () => 'kill');
    this.#watch(Qmp.prototype, 'command', (name) => `qmp ${String(name)}`);
    this.#watch(GuestChannel.prototype, 'control', (op) => `guest ${String(op)}`);
    for (const step of ['open', 'read', 'consume', 'seal', 'sweep'] as const) {
      this.#watch(Snapshot.prototype, step, () => step);
    }
  }

  /** Runs `act` with steps of its own, whatever else happens at the same time. */
  async apart<T>(act: (spans: Spans) => Promise<T>): Promise<T> {
    const spans = new Spans();
    return await this.#apart.run(spans, () => act(spans));
  }

  #watch(prototype: object, method: string, nameOf: (first: unknown) => string): void {
    const methods = prototype as Record<string, (...args: unknown[]) => Promise<unknown>>;
    const original = methods[method];
    if (!original) throw new Error(`The driver has no "${method}" any more.`);
    const spans = (): Spans => this.#apart.getStore() ?? this;
    methods[method] = async function (this: unknown, ...args: unknown[]) {
      const began = performance.now();
      const value = await original.apply(this, args);
      spans().add({ name: nameOf(args[0]), began, ended: performance.now(), value });
      return value;
    };
  }
}
