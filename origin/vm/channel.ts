/**
 * The host's end of the pipe to a guest agent: control requests, and the streams of every process in the machine.
 *
 * The guest is hostile. Whatever breaks the protocol (a malformed frame, more data than its credit, a stream that was
 * never opened) ends the channel with `guest-protocol`, and the owner then kills the machine. Memory is bounded by
 * credits; each answer has a deadline. States: greeting -> open -> closed; `closed` is final and settles everything.
 */
import type { Duplex } from 'node:stream';
import {
  decodeCredit,
  decodeEnd,
  decodeJson,
  encodeFrame,
  encodeJson,
  FRAME,
  type Frame,
  FrameDecoder,
  FrameError,
  MAX_PAYLOAD,
  MAX_STREAMS,
  PROTOCOL_VERSION,
} from '../guest/mux.ts';
import type { ProcessSpec, ServerProcess } from './driver.ts';
import { MachineError } from './error.ts';
import { RemoteProcess } from './process.ts';

const MAX_STREAM_ID = 0xffff_ffff;

interface Waiter {
  resolve: () => void;
  reject: (error: MachineError) => void;
}

export class GuestChannel {
  readonly #pipe: Duplex;
  readonly #decoder = new FrameDecoder();
  readonly #processes = new Map<number, RemoteProcess>();
  readonly #controls = new Map<number, Waiter>();
  readonly #hello = Promise.withResolvers<void>();
  readonly #onClosed: (error: MachineError) => void;
  #lastControl = 0;
  #lastStream = 0;
  #greeted = false;
  #closed: MachineError | undefined;

  /** Resolves when the guest's agent has said hello; rejects when the channel closes first. */
  readonly hello: Promise<void> = this.#hello.promise;

  /** Takes over the pipe. `onClosed` is called once, with the reason. */
  constructor(pipe: Duplex, onClosed: (error: MachineError) => void) {
    this.#pipe = pipe;
    this.#onClosed = onClosed;
    this.hello.catch(() => undefined);
    pipe.on('data', (data: Buffer) => this.#receive(data));
    pipe.on('error', (cause) =>
      this.close(new MachineError('machine-gone', 'the channel to the machine broke', { cause })),
    );
    pipe.once('close', () => this.close(new MachineError('machine-gone', 'the machine ended')));
  }

  /** Sends a control request and waits for its answer. Rejects with `guest-timeout`, `machine-gone`, `guest-protocol`. */
  control(op: string, timeoutMs: number, args: Readonly<Record<string, unknown>> = {}): Promise<void> {
    if (this.#closed !== undefined) return Promise.reject(this.#closed);
    this.#lastControl += 1;
    const id = this.#lastControl;
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#controls.delete(id);
        reject(new MachineError('guest-timeout', `the machine did not answer "${op}" within ${timeoutMs / 1000} s`));
      }, timeoutMs);
      const settle = (act: () => void) => {
        clearTimeout(timer);
        act();
      };
      this.#controls.set(id, { resolve: () => settle(resolve), reject: (error) => settle(() => reject(error)) });
      this.#send(encodeJson(FRAME.control, 0, { ...args, id, op }));
    });
  }

  /** Starts a process; see RunningMachine.spawn. A process that starts after the deadline is killed. */
  async spawn(spec: ProcessSpec, timeoutMs: number): Promise<ServerProcess> {
    if (this.#closed !== undefined) throw this.#closed;
    if (this.#processes.size >= MAX_STREAMS || this.#lastStream >= MAX_STREAM_ID) {
      throw new MachineError('too-many-processes', `the machine already runs ${MAX_STREAMS} processes`);
    }
    const request = Buffer.from(JSON.stringify({ argv: spec.argv, env: spec.env, cwd: spec.cwd }));
    if (request.length > MAX_PAYLOAD) {
      throw new MachineError(
        'spawn-failed',
        `arguments and environment exceed ${MAX_PAYLOAD} bytes; pass a file instead`,
      );
    }
    this.#lastStream += 1;
    const id = this.#lastStream;
    const child = new RemoteProcess(
      id,
      (frame) => this.#send(frame),
      () => this.#processes.delete(id),
    );
    this.#processes.set(id, child);
    this.#send(encodeFrame(FRAME.open, id, request));
    const timer = setTimeout(() => {
      child.abandon(
        new MachineError('guest-timeout', `the machine did not start the process within ${timeoutMs / 1000} s`),
      );
    }, timeoutMs);
    try {
      await child.opened;
    } finally {
      clearTimeout(timer);
    }
    return child;
  }

  /** Ends the channel and everything that waits on it. */
  close(reason: MachineError): void {
    if (this.#closed !== undefined) return;
    this.#closed = reason;
    this.#pipe.destroy();
    this.#hello.reject(reason);
    for (const waiter of this.#controls.values()) waiter.reject(reason);
    this.#controls.clear();
    for (const child of [...this.#processes.values()]) child.lost(reason);
    this.#processes.clear();
    this.#onClosed(reason);
  }

  #send(frame: Buffer): void {
    if (this.#closed === undefined) this.#pipe.write(frame);
  }

  #receive(data: Buffer): void {
    try {
      for (const frame of this.#decoder.push(data)) {
        if (this.#closed !== undefined) return;
        this.#handle(frame);
      }
    } catch (error) {
      if (!(error instanceof FrameError)) throw error;
      this.close(new MachineError('guest-protocol', `the machine broke the protocol and was ended: ${error.message}`));
    }
  }

  #handle(frame: Frame): void {
    if (frame.type === FRAME.hello) {
      if (this.#greeted || frame.payload[0] !== PROTOCOL_VERSION) throw new FrameError('unexpected hello');
      this.#greeted = true;
      this.#hello.resolve();
      return;
    }
    if (!this.#greeted) throw new FrameError('the guest spoke before its hello');
    if (frame.type === FRAME.control) {
      this.#settleControl(decodeJson(frame));
      return;
    }
    const child = this.#processes.get(frame.stream);
    if (child === undefined) {
      // Frames that were under way when the stream was given up are stale; any other number was never ours.
      if (frame.stream === 0 || frame.stream > this.#lastStream)
        throw new FrameError('a frame for a stream never opened');
      return;
    }
    switch (frame.type) {
      case FRAME.opened:
        child.start();
        return;
      case FRAME.failed:
        child.fail(
          new MachineError(
            'spawn-failed',
            `cannot start the process in the machine: ${text(decodeJson(frame).message)}`,
          ),
        );
        return;
      case FRAME.stdout:
      case FRAME.stderr:
        child.receive(frame.type, frame.payload);
        return;
      case FRAME.end:
        child.endOutput(decodeEnd(frame));
        return;
      case FRAME.credit:
        child.grant(decodeCredit(frame));
        return;
      case FRAME.exit: {
        const { code, signal } = decodeJson(frame);
        child.exit(
          Number.isInteger(code) ? { code: Number(code), signal: null } : { code: null, signal: text(signal) },
        );
        return;
      }
      default:
        throw new FrameError(`the guest may not send frame type ${frame.type}`);
    }
  }

  #settleControl(reply: Record<string, unknown>): void {
    const waiter = this.#controls.get(Number(reply.id));
    this.#controls.delete(Number(reply.id));
    if (reply.error === undefined) waiter?.resolve();
    else waiter?.reject(new MachineError('guest-protocol', `the machine refused: ${text(reply.error)}`));
  }
}

/** What a guest says, cut to a length that fits a message. */
function text(value: unknown): string {
  return String(value).slice(0, 500);
}
