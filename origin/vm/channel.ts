/**
 * The host's end of the pipe to a guest agent: control requests, and the streams of every process in the machine.
 *
 * The guest is hostile. Whatever breaks the protocol (a malformed frame, more data than its credit, a stream that was
 * never opened) ends the channel with `guest-protocol`, and the owner then kills the machine. Memory is bounded by
 * credits, and by reading no more of a guest that does not read; each answer has a deadline.
 *
 * States: greeting -> open <-> frozen -> closed; `closed` is final and settles everything. Frozen, nothing is sent or received (what would be sent waits, in order, bounded by the credits), so the pipe
 * may be replaced by that of the QEMU that wakes the machine, and the streams go on.
 */
import type { Duplex } from 'node:stream';
import {
  decodeCredit,
  decodeEnd,
  decodePlain,
  encodeFrame,
  encodeJson,
  FRAME,
  type Frame,
  FrameDecoder,
  FrameError,
  MAX_PAYLOAD,
  MAX_STREAMS,
  OUTGOING,
  PROTOCOL_VERSION,
} from '../guest/mux.ts';
import { GuestConnections } from './connections.ts';
import type { Egress, ProcessSpec, ServerProcess } from './driver.ts';
import { MachineError } from './error.ts';
import { RemoteProcess } from './process.ts';

const MAX_STREAM_ID = OUTGOING - 1;
/** Unread by the guest, in bytes: from here on it is not read either, as it could ask for answers without end. */
const MAX_UNREAD = 1024 * 1024;
/** Frames that wait for the thaw while the guest still opens connections; one of ours leaves far fewer. */
const MAX_HELD = 65_536;
/** A guest that asks to stay awake is asked again after this, in milliseconds. */
const LONGEST_HOLD_MS = 24 * 3_600_000;
/** A clock may be late by so much, in milliseconds. */
const LATE_MS = 250;
/** How often the time is told at the most. */
const TIMES_TOLD = 3;

type Reply = Readonly<Record<string, unknown>>;

/** What the host's end must know to go on with a frozen guest after the agent was started anew. */
export interface ChannelState {
  readonly streams: readonly number[];
  readonly lastStream: number;
  readonly lastControl: number;
}

/** What a guest is told when it goes on (`guest/mux.ts`). */
export interface Thaw {
  readonly ms: number;
  readonly fresh: boolean;
  readonly seed?: string;
  readonly copy?: { readonly hostname: string; readonly machineId: string; readonly keep: readonly number[] };
}

interface Waiter {
  resolve: (reply: Reply) => void;
  reject: (error: MachineError) => void;
}

export class GuestChannel {
  readonly #processes = new Map<number, RemoteProcess>();
  readonly #controls = new Map<number, Waiter>();
  readonly #hello = Promise.withResolvers<void>();
  readonly #onClosed: (error: MachineError) => void;
  readonly #egress: Egress | undefined;
  readonly #connections: GuestConnections;
  #decoder = new FrameDecoder();
  #pipe: Duplex | undefined;
  /** Frames that wait for the thaw; there exactly while the guest is frozen or freezing. */
  #held: Buffer[] | undefined;
  #frozen = false;
  #lastControl = 0;
  #lastStream = 0;
  #greeted = false;
  #closed: MachineError | undefined;

  /** Resolves when the guest's agent has said hello; rejects when the channel closes first. */
  readonly hello: Promise<void> = this.#hello.promise;

  /** `onClosed` is called once, with the reason. With `asleep` the guest is a frozen one, whose processes are running. */
  constructor(onClosed: (error: MachineError) => void, asleep?: ChannelState, egress?: Egress) {
    this.#onClosed = onClosed;
    this.#egress = egress;
    this.#connections = new GuestConnections((frame) => this.#send(frame), egress);
    this.hello.catch(() => undefined);
    if (asleep === undefined) return;
    this.#greeted = true;
    this.#hello.resolve();
    this.#frozen = true;
    this.#held = [];
    this.#lastStream = asleep.lastStream;
    this.#lastControl = asleep.lastControl;
    for (const id of asleep.streams) this.#add(id).start();
  }

  /** Takes over a pipe: the first one, or, of a frozen guest, the next. */
  attach(pipe: Duplex): void {
    this.#pipe?.destroy();
    this.#pipe = pipe;
    this.#decoder = new FrameDecoder();
    const gone = (error: MachineError) => {
      if (this.#pipe === pipe && !this.#frozen) this.close(error);
    };
    pipe.on('data', (data: Buffer) => {
      if (this.#pipe === pipe) this.#receive(data);
    });
    pipe.on('drain', () => pipe.resume());
    pipe.on('error', (cause) => gone(new MachineError('machine-gone', 'the channel to the machine broke', { cause })));
    pipe.once('close', () => gone(new MachineError('machine-gone', 'the machine ended')));
  }

  /** The guest's processes by the names that they have here. */
  processes(): ReadonlyMap<number, ServerProcess> {
    return new Map(this.#processes);
  }

  get isFrozen(): boolean {
    return this.#frozen;
  }

  get state(): ChannelState {
    return { streams: [...this.#processes.keys()], lastStream: this.#lastStream, lastControl: this.#lastControl };
  }

  /**
   * Asks the guest to write its disks and to fall silent. Resolves with 0 when it has, else with how long it is to be left
   * awake, in milliseconds. Rejects as `control`; unless it refused with `guest-protocol`, it is then in neither state and
   * must be ended.
   */
  async freeze(timeoutMs: number, how: { force: boolean; still?: boolean }): Promise<number> {
    const answer = this.control('freeze', timeoutMs, how);
    this.#held = [];
    const reply = await answer.catch((error: unknown) => {
      this.#release();
      throw error;
    });
    if (reply.frozen === true) return 0;
    this.#release();
    return Math.min(Math.max(1, Number(reply.heldMs) || 0), LONGEST_HOLD_MS);
  }

  /** Cuts the connections of a frozen guest whose QEMU is gone. Its programs learn it when they wake. */
  resetConnections(): void {
    this.#connections.reset();
  }

  /**
   * Lets a frozen guest, whose processors run again, speak; with `fresh` it is also told what it may reach: that may be
   * another list than the agent's which let it fall asleep. Resolves when its clock is right. Rejects as `control`.
   */
  async thaw(timeoutMs: number, args: Thaw): Promise<void> {
    const held = this.#held ?? [];
    this.#held = undefined;
    this.#frozen = false;
    const told = Date.now();
    const answers = [this.control('thaw', timeoutMs, { ...args })];
    if (args.fresh) answers.push(this.control('egress', timeoutMs, { allow: this.#egress?.allow ?? [] }));
    for (const frame of held) this.#send(frame);
    await Promise.all(answers);
    if (Date.now() - told > LATE_MS) await this.tellTime(timeoutMs);
  }

  /** Tells the guest what time it is: again where a busy host delivers so late that it is over by then. Rejects as `control`. */
  async tellTime(timeoutMs: number): Promise<void> {
    // Whoever falls asleep is told when it wakes.
    for (let turn = 0; turn < TIMES_TOLD && this.#held === undefined; turn += 1) {
      const ms = Date.now();
      await this.control('time', timeoutMs, { ms });
      if (Date.now() - ms <= LATE_MS) return;
    }
  }

  /** Sends a control request and waits for its answer. Rejects with `guest-timeout`, `machine-gone`, `guest-protocol`. */
  control(op: string, timeoutMs: number, args: Reply = {}): Promise<Reply> {
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
      this.#controls.set(id, {
        resolve: (reply) => settle(() => resolve(reply)),
        reject: (error) => settle(() => reject(error)),
      });
      this.#send(encodeJson(FRAME.control, 0, { ...args, id, op }));
    });
  }

  /** Starts a process; see RunningMachine.spawn. A process that starts after the deadline is killed. */
  async spawn(spec: ProcessSpec, timeoutMs: number): Promise<ServerProcess> {
    if (this.#closed !== undefined) throw this.#closed;
    if (this.#processes.size >= MAX_STREAMS || this.#lastStream >= MAX_STREAM_ID) {
      throw new MachineError('too-many-processes', `the machine already runs ${MAX_STREAMS} processes`);
    }
    const { argv, env, cwd, terminal } = spec;
    const request = Buffer.from(JSON.stringify({ argv, env, cwd, terminal }));
    if (request.length > MAX_PAYLOAD) {
      throw new MachineError(
        'spawn-failed',
        `arguments and environment exceed ${MAX_PAYLOAD} bytes; pass a file instead`,
      );
    }
    this.#lastStream += 1;
    const id = this.#lastStream;
    const child = this.#add(id);
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
    this.#pipe?.destroy();
    this.#hello.reject(reason);
    for (const waiter of this.#controls.values()) waiter.reject(reason);
    this.#controls.clear();
    for (const child of [...this.#processes.values()]) child.lost(reason);
    this.#processes.clear();
    this.#connections.drop();
    this.#onClosed(reason);
  }

  #add(id: number): RemoteProcess {
    const child = new RemoteProcess(
      id,
      (frame) => this.#send(frame),
      () => this.#processes.delete(id),
    );
    this.#processes.set(id, child);
    return child;
  }

  #send(frame: Buffer): void {
    if (this.#closed !== undefined) return;
    if (this.#held !== undefined) this.#held.push(frame);
    else if (this.#pipe !== undefined) {
      this.#pipe.write(frame);
      if (this.#pipe.writableLength > MAX_UNREAD) this.#pipe.pause();
    }
  }

  #release(): void {
    const held = this.#held ?? [];
    this.#held = undefined;
    for (const frame of held) this.#send(frame);
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
    if (this.#frozen) throw new FrameError('the guest spoke although it is frozen');
    if (frame.type === FRAME.control) {
      this.#settleControl(decodePlain(frame));
      return;
    }
    if (frame.type === FRAME.note) {
      this.#egress?.note(decodePlain(frame));
      return;
    }
    if (frame.stream >= OUTGOING) {
      if ((this.#held?.length ?? 0) > MAX_HELD) throw new FrameError('the guest asks on instead of falling silent');
      this.#connections.handle(frame);
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
            `cannot start the process in the machine: ${text(decodePlain(frame).message)}`,
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
        const { code, signal } = decodePlain(frame);
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
    if (reply.frozen === true) {
      if (this.#held === undefined) throw new FrameError('the guest froze unasked');
      this.#frozen = true;
    }
    const waiter = this.#controls.get(Number(reply.id));
    this.#controls.delete(Number(reply.id));
    if (reply.error === undefined) waiter?.resolve(reply);
    else waiter?.reject(new MachineError('guest-protocol', `the machine refused: ${text(reply.error)}`));
  }
}

/** What a guest says, cut to a length that fits a message. */
function text(value: unknown): string {
  return String(value).slice(0, 500);
}
