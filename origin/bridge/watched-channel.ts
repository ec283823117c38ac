/**
 * Owns the watch over one server process: a channel that notes which calls wait, and asks the server whether it is well
 * when `health.ts` says so. The question and its answer are seen by nobody else.
 */
import { isRequest, isResponse, type JsonRpcMessage, type JsonRpcRequest } from '../../shared/jsonrpc.ts';
import type { Channel, ChannelEnd, ChannelEvents, OpenChannel, SendOptions } from './channel.ts';
import { LISTEN } from './correlate-modern.ts';
import { Health } from './health.ts';

/** Requests of clients are numbered from 1. */
export const QUESTION_ID = 0;

export interface Watch {
  /** What a server of its era must answer whatever it does; its id is QUESTION_ID. */
  readonly question: JsonRpcRequest;
  /** It has not answered for so long, in milliseconds, while so many calls wait. */
  readonly silent: (forMs: number, calls: number) => void;
  readonly now: () => number;
}

export class WatchedChannel implements Channel {
  readonly #inner: Channel;
  readonly #waiting = new Set<number>();
  readonly #health: Health;
  readonly closed: Promise<ChannelEnd>;

  constructor(open: OpenChannel, { question, silent, now }: Watch, events: ChannelEvents) {
    this.#inner = open({
      message: (message, via) => {
        this.#health.heard();
        if (isResponse(message) && message.id === QUESTION_ID) return;
        if (isResponse(message)) this.#over(message.id);
        events.message(message, via);
      },
      lost: (id, error) => {
        if (id === QUESTION_ID) return;
        this.#over(id);
        events.lost(id, error);
      },
    });
    this.#health = new Health({
      ask: () => this.#inner.send(question),
      forget: () => this.#inner.send(cancelled),
      asleep: () => this.#inner.asleep ?? false,
      silent: (forMs) => silent(forMs, this.#waiting.size),
      now,
    });
    this.closed = this.#inner.closed.finally(() => this.#health.close());
  }

  get silentSince(): number | undefined {
    return this.#health.silentSince;
  }

  get unread(): number {
    return this.#inner.unread;
  }

  get asleep(): boolean {
    return this.#inner.asleep ?? false;
  }

  get outlives(): boolean {
    return this.#inner.outlives ?? false;
  }

  send(message: JsonRpcMessage, options?: SendOptions): void {
    if (isRequest(message) && message.method !== LISTEN && typeof message.id === 'number') {
      if (!this.#waiting.has(message.id)) this.#health.began();
      this.#waiting.add(message.id);
    } else if ('method' in message && message.method === 'notifications/cancelled') {
      this.#over(message.params?.requestId);
    }
    this.#inner.send(message, options);
  }

  abandon(id: number): boolean {
    this.#over(id);
    return this.#inner.abandon(id);
  }

  async awake(): Promise<void> {
    await this.#inner.awake?.();
  }

  async end(): Promise<void> {
    await this.#inner.end();
  }

  #over(id: unknown): void {
    if (typeof id === 'number' && this.#waiting.delete(id)) this.#health.ended();
  }
}

const cancelled: JsonRpcMessage = {
  jsonrpc: '2.0',
  method: 'notifications/cancelled',
  params: { requestId: QUESTION_ID, reason: 'The answer is no longer waited for.' },
};
