/**
 * A process inside a machine as its host-side streams; the counterpart of `guest/process.ts`.
 *
 * States: opening -> running -> exited -> done. `done` (both outputs ended and the exit known, or given up) removes it
 * from the channel. Credit is returned only for bytes that the reader took, so an unread stream stops the guest after
 * WINDOW bytes; bytes of a stream that its owner destroyed are dropped and credited, so that the process can go on.
 */
import { Readable, Writable } from 'node:stream';
import {
  CHANNEL,
  type Channel,
  encodeCredit,
  encodeEnd,
  encodeFrame,
  encodeResize,
  FRAME,
  FrameError,
  ReceiveWindow,
  SendWindow,
} from '../guest/mux.ts';
import type { ProcessExit, ProcessSignal, ServerProcess, TerminalSize } from './driver.ts';
import type { MachineError } from './error.ts';

/** Numbers of the guest, which is Linux. */
const SIGNALS: Readonly<Record<ProcessSignal, number>> = {
  SIGHUP: 1,
  SIGINT: 2,
  SIGQUIT: 3,
  SIGKILL: 9,
  SIGUSR1: 10,
  SIGUSR2: 12,
  SIGTERM: 15,
};

type Send = (frame: Buffer) => void;

export class RemoteProcess implements ServerProcess {
  readonly stdin: InputStream;
  readonly stdout: OutputStream;
  readonly stderr: OutputStream;
  readonly exited: Promise<ProcessExit>;
  readonly opened: Promise<void>;
  readonly stream: number;
  readonly #send: Send;
  readonly #onDone: () => void;
  readonly #opening = Promise.withResolvers<void>();
  readonly #exit = Promise.withResolvers<ProcessExit>();
  #over = false;

  constructor(id: number, send: Send, onDone: () => void) {
    this.stream = id;
    this.#send = send;
    this.#onDone = onDone;
    this.opened = this.#opening.promise;
    this.opened.catch(() => undefined);
    this.exited = this.#exit.promise;
    this.stdin = new InputStream(id, send);
    this.stdout = new OutputStream(id, CHANNEL.stdout, send);
    this.stderr = new OutputStream(id, CHANNEL.stderr, send);
  }

  kill(signal: ProcessSignal = 'SIGTERM'): void {
    if (!this.#over) this.#send(encodeFrame(FRAME.signal, this.stream, Buffer.from([SIGNALS[signal]])));
  }

  resize(size: TerminalSize): void {
    if (!this.#over) this.#send(encodeResize(this.stream, size));
  }

  start(): void {
    this.#opening.resolve();
  }

  /** It never ran: nobody has the streams yet, so they just go. */
  fail(error: MachineError): void {
    this.#opening.reject(error);
    this.#finish({ code: null, signal: 'SIGKILL' });
    this.#destroyStreams();
    this.#onDone();
  }

  /** Nobody wants it any more: it is killed, and what it still says is dropped until its end has been heard. */
  abandon(error: MachineError): void {
    this.#opening.reject(error);
    this.kill('SIGKILL');
    this.#destroyStreams();
  }

  /** The machine went away: readers and writers learn why. */
  lost(error: MachineError): void {
    this.#opening.reject(error);
    const cut = this.#over ? [] : [this.stdin];
    // Output that had already ended is complete and may still be read.
    const outputs = [this.stdout, this.stderr].filter((output) => !output.ended);
    this.#finish({ code: null, signal: 'SIGKILL' });
    for (const stream of [...cut, ...outputs]) {
      // A stream without an error listener would take the whole agent down with it; `exited` tells those owners.
      stream.on('error', () => undefined);
      stream.destroy(error);
    }
  }

  receive(type: typeof FRAME.stdout | typeof FRAME.stderr, data: Buffer): void {
    (type === FRAME.stdout ? this.stdout : this.stderr).receive(data);
  }

  endOutput(channel: Channel): void {
    if (channel === CHANNEL.stdin) throw new FrameError('the guest ended an input');
    (channel === CHANNEL.stdout ? this.stdout : this.stderr).end();
    this.#doneWhenOver();
  }

  grant({ channel, bytes }: { channel: Channel; bytes: number }): void {
    if (channel !== CHANNEL.stdin) throw new FrameError('the guest granted credit for its own output');
    this.stdin.grant(bytes);
  }

  exit(exit: ProcessExit): void {
    this.#finish(exit);
    this.stdin.destroy();
    this.#doneWhenOver();
  }

  #destroyStreams(): void {
    for (const stream of [this.stdin, this.stdout, this.stderr]) stream.destroy();
  }

  #finish(exit: ProcessExit): void {
    this.#over = true;
    this.stdin.close();
    this.#exit.resolve(exit);
  }

  #doneWhenOver(): void {
    if (this.#over && this.stdout.ended && this.stderr.ended) this.#onDone();
  }
}

/** stdin: a write completes when its last byte has been sent, and bytes are sent only against credit. */
export class InputStream extends Writable {
  readonly #id: number;
  readonly #send: Send;
  readonly #window = new SendWindow();
  #pending: { data: Buffer; done: () => void } | undefined;
  #ended = false;

  constructor(id: number, send: Send) {
    super({ highWaterMark: 64 * 1024 });
    this.#id = id;
    this.#send = send;
  }

  grant(bytes: number): void {
    this.#window.grant(bytes);
    this.#pump();
  }

  /** From here on nothing is sent: the process has gone. */
  close(): void {
    this.#ended = true;
  }

  override _write(data: Buffer, _encoding: string, done: () => void): void {
    this.#pending = { data, done };
    this.#pump();
  }

  override _final(done: () => void): void {
    this.#end();
    done();
  }

  override _destroy(error: Error | null, done: (error: Error | null) => void): void {
    this.#pending = undefined;
    this.#end();
    done(error);
  }

  #end(): void {
    if (!this.#ended) this.#send(encodeEnd(this.#id, CHANNEL.stdin));
    this.#ended = true;
  }

  #pump(): void {
    while (this.#pending !== undefined) {
      const { data, done } = this.#pending;
      const size = this.#window.take(data.length);
      if (size > 0) this.#send(encodeFrame(FRAME.stdin, this.#id, data.subarray(0, size)));
      if (size < data.length) {
        this.#pending = { data: data.subarray(size), done };
        if (this.#window.available === 0) return;
        continue;
      }
      this.#pending = undefined;
      done();
    }
  }
}

/** stdout or stderr: credits follow what has been read out of the stream's buffer. */
export class OutputStream extends Readable {
  readonly #id: number;
  readonly #channel: Channel;
  readonly #send: Send;
  readonly #window = new ReceiveWindow();
  #received = 0;
  #consumed = 0;
  ended = false;

  constructor(id: number, channel: Channel, send: Send) {
    super({ highWaterMark: 32 * 1024 });
    this.#id = id;
    this.#channel = channel;
    this.#send = send;
  }

  receive(data: Buffer): void {
    if (this.ended) throw new FrameError('the guest sent data after its end');
    this.#window.receive(data.length);
    this.#received += data.length;
    if (this.destroyed) this.#consume(data.length);
    else if (data.length > 0) this.push(data);
    this.#settle();
  }

  end(): void {
    if (this.ended) return;
    this.ended = true;
    if (!this.destroyed) this.push(null);
  }

  /** Every way of consuming a stream comes through here, and only after it is a chunk out of the buffer. */
  override read(size?: number): unknown {
    const chunk: unknown = super.read(size);
    this.#settle();
    return chunk;
  }

  override _read(): void {
    // Data comes by itself, as far as the credit allows.
  }

  override _destroy(error: Error | null, done: (error: Error | null) => void): void {
    this.#consume(this.#received - this.#consumed);
    done(error);
  }

  /** Credits what left the buffer. */
  #settle(): void {
    if (!this.destroyed) this.#consume(this.#received - this.readableLength - this.#consumed);
  }

  #consume(bytes: number): void {
    this.#consumed += bytes;
    const credit = this.#window.consume(bytes);
    if (credit > 0 && !this.ended) this.#send(encodeCredit(this.#id, this.#channel, credit));
  }
}
