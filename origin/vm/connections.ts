/**
 * The host's end of the connections that a guest opens; the counterpart of `guest/connection.ts`.
 *
 * States of one: asked -> open -> over, or asked -> over (refused). Whether and whereto it is made is for the `Egress` of the
 * machine; without one every connection is refused. The guest is hostile: its numbers only grow, no more than
 * MAX_CONNECTIONS are there at once, and each has the windows of `mux.ts` in either direction.
 */
import {
  CHANNEL,
  decodeCredit,
  decodeEnd,
  decodePlain,
  encodeFrame,
  encodeJson,
  FRAME,
  type Frame,
  FrameError,
  MAX_CONNECTIONS,
  OUTGOING,
} from '../guest/mux.ts';
import type { Egress, GuestConnection } from './driver.ts';
import { InputStream, OutputStream } from './process.ts';

type Send = (frame: Buffer) => void;

class Connection implements GuestConnection {
  readonly target: Readonly<Record<string, unknown>>;
  readonly up: OutputStream;
  readonly down: InputStream;
  readonly #id: number;
  readonly #send: Send;
  readonly #onOver: () => void;
  readonly #gone = new AbortController();
  #over = false;

  constructor(id: number, target: Record<string, unknown>, send: Send, onOver: () => void) {
    this.#id = id;
    this.target = target;
    this.#send = send;
    this.#onOver = onOver;
    this.up = new OutputStream(id, CHANNEL.stdout, send);
    this.down = new InputStream(id, send);
    // Whoever carries them learns it in his own way; without a listener the agent would fall.
    for (const stream of [this.up, this.down]) stream.on('error', () => undefined);
    this.down.once('close', () => this.#settle());
  }

  get gone(): AbortSignal {
    return this.#gone.signal;
  }

  accept(): void {
    if (!this.#over) this.#send(encodeFrame(FRAME.opened, this.#id));
  }

  refuse(why: string): void {
    this.#end(encodeJson(FRAME.failed, this.#id, { message: why }));
  }

  reset(): void {
    this.#end(encodeFrame(FRAME.reset, this.#id));
  }

  /** Ends it without a word to the guest. */
  drop(): void {
    this.#end();
  }

  handle(frame: Frame): void {
    switch (frame.type) {
      case FRAME.stdout:
        this.up.receive(frame.payload);
        return;
      case FRAME.end:
        if (decodeEnd(frame) !== CHANNEL.stdout) throw new FrameError('the guest ended what it does not send');
        this.up.end();
        this.#settle();
        return;
      case FRAME.credit: {
        const { channel, bytes } = decodeCredit(frame);
        if (channel !== CHANNEL.stdin) throw new FrameError('the guest granted credit for what it sends');
        this.down.grant(bytes);
        return;
      }
      case FRAME.reset:
        this.drop();
        return;
      default:
        throw new FrameError(`the guest may not send frame type ${frame.type} to a connection`);
    }
  }

  #end(last?: Buffer): void {
    if (this.#over) return;
    this.#over = true;
    if (last !== undefined) this.#send(last);
    this.up.end();
    this.down.close();
    this.#gone.abort();
    for (const stream of [this.up, this.down]) stream.destroy();
    this.#onOver();
  }

  /** What was received and is not read yet is still there to be read. */
  #settle(): void {
    if (this.#over || !this.up.ended || !this.down.destroyed) return;
    this.#over = true;
    this.#onOver();
  }
}

export class GuestConnections {
  readonly #send: Send;
  readonly #egress: Egress | undefined;
  readonly #connections = new Map<number, Connection>();
  #last = OUTGOING - 1;

  constructor(send: Send, egress: Egress | undefined) {
    this.#send = send;
    this.#egress = egress;
  }

  /** A frame of the guest whose stream is a connection. @throws FrameError. */
  handle(frame: Frame): void {
    const { stream } = frame;
    if (frame.type === FRAME.connect) {
      if (stream <= this.#last) throw new FrameError('a connection opened twice');
      this.#last = stream;
      this.#open(stream, decodePlain(frame));
      return;
    }
    const connection = this.#connections.get(stream);
    // Frames that were under way when it ended are stale; any other number was never one.
    if (connection !== undefined) connection.handle(frame);
    else if (stream > this.#last) throw new FrameError('a frame for a connection never opened');
  }

  /** The machine sleeps for long: its programs find their connections reset when it wakes. */
  reset(): void {
    for (const connection of [...this.#connections.values()]) connection.reset();
  }

  /** The machine is gone. */
  drop(): void {
    for (const connection of [...this.#connections.values()]) connection.drop();
  }

  #open(stream: number, target: Record<string, unknown>): void {
    const connection = new Connection(stream, target, this.#send, () => this.#connections.delete(stream));
    if (this.#egress === undefined) connection.refuse('this machine may connect to nothing');
    else if (this.#connections.size >= MAX_CONNECTIONS) this.#egress.overflow(connection);
    else {
      this.#connections.set(stream, connection);
      this.#egress.connect(connection);
    }
  }
}
