/**
 * Owns what keeps a server's machine awake: a channel to a process in a machine that sleeps, which wakes it for what is sent.
 *
 * States: awake (has a lease), idle (has none; the machine may sleep), waking (messages wait, in order), closed.
 * A lease is held for every request in flight, for every question of the server that is not answered (for
 * QUESTION_HOLDS_MS at most), and for every task until it is over (as long as it says it lives, TASK_HOLDS_MS at most).
 * Nothing else holds the machine: not an open session, not a subscription, not a `subscriptions/listen`.
 *
 * Invariants: messages reach the process in the order in which they were sent; a request that the process has not seen is
 * reported lost with `session_unknown`, which has it repeated, never with an unknown outcome.
 */
import { MoorageError } from '../../shared/errors.ts';
import { isNotification, isRequest, isResponse, type JsonRpcMessage, nameFrom } from '../../shared/jsonrpc.ts';
import type { Lease } from '../supervisor/slot.ts';
import type { Channel, ChannelEnd, ChannelEvents, OpenChannel, SendOptions } from './channel.ts';
import { endedTask, startedTask } from './tasks.ts';

/** The machine of one channel. */
export interface Keeper {
  /** The right to it, running. Rejects with a MoorageError. */
  lease(): Promise<Lease>;
  /** As `lease`, where it runs now. */
  leaseNow(): Lease | undefined;
  /** Calls `act` once when it runs the next time. */
  whenAwake(act: () => void): void;
}

/** A question's asker may sleep after this, in milliseconds; the answer wakes it. */
const QUESTION_HOLDS_MS = 600_000;
const TASK_HOLDS_MS = 24 * 3_600_000;
/** A request whose answer opens a stream that may stay open for days (2026-07-28, basic/utilities/subscriptions). */
const LISTEN = 'subscriptions/listen';

export class WakingChannel implements Channel {
  readonly #inner: Channel;
  readonly #keeper: Keeper;
  readonly #events: ChannelEvents;
  /** Why the machine must stay awake, each with the timer that bounds it. */
  readonly #reasons = new Map<string, NodeJS.Timeout | undefined>();
  #queue: { message: JsonRpcMessage; options: SendOptions | undefined }[] = [];
  #queuedBytes = 0;
  #lease: Lease | undefined;
  #waking = false;
  #open = true;
  readonly closed: Promise<ChannelEnd>;

  constructor(open: OpenChannel, keeper: Keeper, events: ChannelEvents) {
    this.#keeper = keeper;
    this.#events = events;
    this.#inner = open({
      message: (message, via) => this.#said(message, via),
      lost: (id, error) => {
        this.#drop(`call ${id}`);
        events.lost(id, error);
      },
    });
    this.closed = this.#inner.closed.then((end) => {
      this.#open = false;
      this.#abandonQueue(neverSeen());
      for (const reason of [...this.#reasons.keys()]) this.#drop(reason);
      this.#settle();
      return end;
    });
  }

  get unread(): number {
    return this.#inner.unread + this.#queuedBytes;
  }

  send(message: JsonRpcMessage, options?: SendOptions): void {
    if (!this.#open) return;
    this.#note(message);
    this.#lease ??= this.#waking ? undefined : this.#keeper.leaseNow();
    if (this.#lease !== undefined) {
      this.#inner.send(message, options);
      this.#settle();
      return;
    }
    this.#queue.push({ message, options });
    this.#queuedBytes += JSON.stringify(message).length;
    if (!this.#waking) void this.#wake();
  }

  get outlives(): boolean {
    return true;
  }

  get asleep(): boolean {
    const lease = this.#keeper.leaseNow();
    lease?.release();
    return lease === undefined;
  }

  async awake(): Promise<void> {
    const lease = this.#keeper.leaseNow();
    if (lease !== undefined) {
      lease.release();
      return;
    }
    const waking = this.#keeper.lease().then((woken) => woken.release());
    // The machine that is lost while it wakes takes the process along; the lease is then of the next one.
    await Promise.race([waking, this.closed]);
  }

  abandon(id: number): boolean {
    this.#drop(`call ${id}`);
    this.#settle();
    return this.#inner.abandon(id);
  }

  /** A process that sleeps is ended when its machine wakes for something else: ending it is not worth waking it. */
  async end(): Promise<void> {
    const lease = this.#keeper.leaseNow();
    if (lease === undefined) this.#keeper.whenAwake(() => void this.end());
    else {
      await this.#inner.end();
      lease.release();
    }
    await this.closed;
  }

  async #wake(): Promise<void> {
    this.#waking = true;
    let lease: Lease;
    try {
      lease = await this.#keeper.lease();
    } catch (error) {
      this.#waking = false;
      this.#abandonQueue(error instanceof MoorageError ? error : neverSeen());
      return;
    }
    this.#waking = false;
    if (!this.#open) {
      lease.release();
      return;
    }
    this.#lease = lease;
    const queue = this.#queue;
    this.#queue = [];
    this.#queuedBytes = 0;
    for (const { message, options } of queue) this.#inner.send(message, options);
    this.#settle();
  }

  /** Learns from what is sent. */
  #note(message: JsonRpcMessage): void {
    if (isRequest(message)) {
      if (message.method !== LISTEN) this.#hold(`call ${message.id}`);
    } else if (isResponse(message)) {
      this.#drop(`question ${message.id}`);
    } else if (message.method === 'notifications/cancelled') {
      this.#drop(`call ${nameFrom(message.params?.requestId)}`);
    }
  }

  #said(message: JsonRpcMessage, via: number | undefined): void {
    const started = startedTask(message);
    if (started) this.#hold(`task ${started.id}`, Math.min(started.livesMs, TASK_HOLDS_MS));
    const ended = endedTask(message);
    if (ended !== undefined) this.#drop(`task ${ended}`);
    if (isRequest(message)) this.#hold(`question ${message.id}`, QUESTION_HOLDS_MS);
    else if (isResponse(message)) this.#drop(`call ${message.id}`);
    else if (isNotification(message) && message.method === 'notifications/cancelled') {
      this.#drop(`question ${nameFrom(message.params?.requestId)}`);
    }
    // The owner may still have to act on the machine (a tool's result waits for its disk), so the lease goes last.
    this.#events.message(message, via);
    this.#settle();
  }

  #hold(reason: string, forMs?: number): void {
    clearTimeout(this.#reasons.get(reason));
    const end = () => {
      this.#drop(reason);
      this.#settle();
    };
    this.#reasons.set(reason, forMs === undefined ? undefined : setTimeout(end, forMs).unref());
    // What the server begins by itself it begins while it runs.
    this.#lease ??= this.#waking ? undefined : this.#keeper.leaseNow();
  }

  #drop(reason: string): void {
    clearTimeout(this.#reasons.get(reason));
    this.#reasons.delete(reason);
  }

  /** Gives the lease back when nothing needs it. */
  #settle(): void {
    if (this.#reasons.size > 0) return;
    this.#lease?.release();
    this.#lease = undefined;
  }

  #abandonQueue(error: MoorageError): void {
    const queue = this.#queue;
    this.#queue = [];
    this.#queuedBytes = 0;
    for (const { message } of queue) {
      if (!isRequest(message) || typeof message.id !== 'number') continue;
      this.#drop(`call ${message.id}`);
      this.#events.lost(message.id, error);
    }
  }
}

const neverSeen = (): MoorageError =>
  new MoorageError('session_unknown', 'The process ended while its machine slept. It has not seen this request.');
