/**
 * Owns events that wait to be acknowledged by the edge. Pure.
 *
 * Invariants: numbers are given once, in order; at most `MAX_EVENTS` events and `MAX_BYTES` bytes wait; over the bound the
 * oldest go first, and how many were lost is counted.
 */
import type { JsonRpcMessage } from '../../shared/jsonrpc.ts';
import { type ChangedLane, MAX_LINK_FRAME_BYTES, type UpFrame } from '../../shared/link.ts';

export const MAX_EVENTS = 1_000;
export const MAX_BYTES = 8 * 1024 * 1024;

interface Waiting {
  readonly seq: number;
  readonly text: string;
}

export class Outbox {
  #waiting: Waiting[] = [];
  #bytes = 0;
  #last = 0;
  #lost = 0;

  /** Events given up so far because nobody acknowledged them in time or they were too large. */
  get lost(): number {
    return this.#lost;
  }

  /** Takes a message in. Returns its frame, or nothing when it is too large for a frame. `starting`, `lane`: see `link.ts`. */
  add(sessions: readonly string[], message: JsonRpcMessage, starting = false, lane?: ChangedLane): string | undefined {
    const frame: UpFrame = {
      type: 'event',
      seq: this.#last + 1,
      sessions: [...sessions],
      ...(starting ? { starting } : {}),
      ...(lane ? { lane } : {}),
      message: { ...message },
    };
    const text = JSON.stringify(frame);
    if (text.length > MAX_LINK_FRAME_BYTES) {
      this.#lost++;
      return undefined;
    }
    this.#last++;
    this.#waiting.push({ seq: this.#last, text });
    this.#bytes += text.length;
    while (this.#waiting.length > MAX_EVENTS || this.#bytes > MAX_BYTES) {
      this.#bytes -= this.#waiting.shift()?.text.length ?? 0;
      this.#lost++;
    }
    return text;
  }

  /** Everything up to `seq` has arrived. */
  acknowledge(seq: number): void {
    while (this.#waiting[0] && this.#waiting[0].seq <= seq) this.#bytes -= this.#waiting.shift()?.text.length ?? 0;
  }

  /** Frames to send again on a new connection, oldest first. */
  unacknowledged(): string[] {
    return this.#waiting.map((event) => event.text);
  }
}
