/**
 * One connection of a program in the machine to somewhere outside: its socket here, carried to the host as a stream.
 *
 * States: asking -> open -> closed. Asking, what the program sends waits in its socket. It is closed in order when both ways
 * have ended; else the program sees a reset (a refusal, too: its connect has succeeded by then), so that nothing cut short
 * passes for complete.
 */
import type { Socket } from 'node:net';
import type { Gate } from './gate.ts';
import {
  CHANNEL,
  decodeCredit,
  decodeEnd,
  encodeCredit,
  encodeEnd,
  encodeFrame,
  encodeJson,
  FRAME,
  type Frame,
  FrameError,
  ReceiveWindow,
  SendWindow,
} from './mux.ts';

export class Connection {
  readonly #id: number;
  readonly #gate: Gate;
  readonly #socket: Socket;
  readonly #onClosed: () => void;
  readonly #up = new SendWindow();
  readonly #down = new ReceiveWindow();
  #isOpen = false;
  #upEnded = false;
  #downEnded = false;
  #closed = false;

  constructor(id: number, gate: Gate, socket: Socket, target: { host: string; port: number }, onClosed: () => void) {
    this.#id = id;
    this.#gate = gate;
    this.#socket = socket;
    this.#onClosed = onClosed;
    socket.on('error', () => undefined);
    socket.once('close', () => this.#socketClosed());
    gate.send(encodeJson(FRAME.connect, id, target));
  }

  handle(frame: Frame): void {
    switch (frame.type) {
      case FRAME.opened:
        this.#open();
        return;
      case FRAME.stdin:
        this.#write(frame.payload);
        return;
      case FRAME.end:
        decodeEnd(frame);
        this.#downEnded = true;
        this.#socket.end();
        return;
      case FRAME.credit:
        this.#up.grant(decodeCredit(frame).bytes);
        this.resume();
        return;
      case FRAME.failed:
      case FRAME.reset:
        this.forget();
        return;
      default:
        throw new FrameError(`the host may not send frame type ${frame.type} to a connection`);
    }
  }

  /** Continues after the port was congested, or with new credit. */
  resume(): void {
    if (!this.#isOpen) return;
    while (!this.#gate.congested && this.#up.available > 0 && this.#socket.readableLength > 0) {
      const chunk: Buffer | null = this.#socket.read(this.#up.take(this.#socket.readableLength));
      if (chunk === null) return;
      this.#gate.send(encodeFrame(FRAME.stdout, this.#id, chunk));
    }
    // An empty read is what makes a finished stream say so.
    if (this.#socket.readableLength === 0) this.#socket.read(0);
  }

  /** The host knows nothing of it any more: the program is told, the host is not. */
  forget(): void {
    this.#closed = true;
    this.#socket.resetAndDestroy();
    this.#onClosed();
  }

  #open(): void {
    this.#isOpen = true;
    this.#socket.on('readable', () => this.resume());
    this.#socket.once('end', () => {
      this.#upEnded = true;
      if (!this.#closed) this.#gate.send(encodeEnd(this.#id, CHANNEL.stdout));
    });
    this.resume();
  }

  #write(data: Buffer): void {
    this.#down.receive(data.length);
    this.#socket.write(data, () => {
      const credit = this.#down.consume(data.length);
      if (credit > 0 && !this.#closed) this.#gate.send(encodeCredit(this.#id, CHANNEL.stdin, credit));
    });
  }

  #socketClosed(): void {
    if (this.#closed) return;
    this.#closed = true;
    if (!this.#upEnded || !this.#downEnded) this.#gate.send(encodeFrame(FRAME.reset, this.#id));
    this.#onClosed();
  }
}
