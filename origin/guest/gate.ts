/**
 * The way of all frames to the host, which can be closed: while the machine freezes, nothing may be under way.
 *
 * States: open, closed. Closed, frames wait in order (few: producers are told to hold back, as when the port is congested)
 * and are sent when it opens. Before the host is told that the machine is frozen, everything said earlier has left, so a
 * snapshot never cuts a frame in two and either end may be replaced.
 */
import { FRAME, OUTGOING } from './mux.ts';
import type { Port } from './port.ts';

export class Gate {
  readonly #port: Port;
  #waiting: Buffer[] | undefined;
  onDrain: () => void = () => undefined;

  constructor(port: Port) {
    this.#port = port;
    port.onDrain = () => {
      if (this.#waiting === undefined) this.onDrain();
    };
  }

  get congested(): boolean {
    return this.#waiting !== undefined || this.#port.congested;
  }

  send(frame: Buffer): void {
    if (this.#waiting === undefined) this.#port.send(frame);
    else this.#waiting.push(frame);
  }

  /** Sends a last frame and closes. */
  closeWith(last: Buffer): void {
    this.#port.send(last);
    this.#waiting ??= [];
  }

  /** With `fresh` the host has forgotten the credit it gave, and all connections: what was said about these is dropped. */
  open(fresh: boolean): void {
    const waiting = this.#waiting ?? [];
    this.#waiting = undefined;
    for (const frame of waiting) if (!fresh || !isForgotten(frame)) this.#port.send(frame);
    this.onDrain();
  }
}

const isForgotten = (frame: Buffer): boolean => frame[0] === FRAME.credit || frame.readUInt32LE(1) >= OUTGOING;
