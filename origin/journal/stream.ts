/**
 * Owns one resumable stream at the agent: the messages of one call, in their order, from the first to the response.
 *
 * States: running, then ended (the response was appended); an ended one only replays.
 * Invariants: an event is in the journal before its reader hears of it; a reader that is behind is served from the journal,
 * so one that does not read costs no memory; there is one reader at a time, the newest. What cannot be kept (`bounds.ts`, a
 * full disk) still reaches a reader that is up to date.
 */
import { isNotification, type JsonRpcMessage, type JsonRpcResponse } from '../../shared/jsonrpc.ts';
import { type Kept, makeRoom } from '../../shared/make-room.ts';
import { STREAM_ROOM } from './bounds.ts';
import type { Database, StoredEvent } from './database.ts';

/** Who carries a stream to the edge. */
export interface StreamReader {
  /** There is one event more. It is `after` its predecessor unless it could not be kept. */
  grew(event: StoredEvent): void;
  /** A newer reader took over. */
  replaced(): void;
}

export class Stream {
  readonly id: string;
  readonly #database: Database;
  readonly #onEnd: (bytes: number) => void;
  #last: number;
  #ended: boolean;
  #reader: StreamReader | undefined;
  /** Events that are kept, without the response. */
  #row: Kept[] = [];
  #bytes = 0;

  /** `ended` is given for a stream that is read back: the place of its last event. */
  constructor(id: string, database: Database, onEnd: (bytes: number) => void, ended?: { readonly last: number }) {
    this.id = id;
    this.#database = database;
    this.#onEnd = onEnd;
    this.#last = ended?.last ?? 0;
    this.#ended = ended !== undefined;
  }

  get ended(): boolean {
    return this.#ended;
  }

  /** Place of the newest event; 0 before the first. */
  get last(): number {
    return this.#last;
  }

  append(message: JsonRpcMessage): void {
    if (this.#ended) return;
    const event = { n: ++this.#last, data: JSON.stringify(message), failed: 0 };
    const bytes = Buffer.byteLength(event.data);
    const held = { messages: this.#row.length, bytes: this.#bytes };
    const { drop, keep } = makeRoom(this.#row, { bytes }, held, STREAM_ROOM);
    if (keep && this.#database.append(this.id, event.n, event.data)) {
      if (drop.length > 0) this.#drop(drop);
      this.#row.push({ n: event.n, bytes, droppable: isNotification(message) });
      this.#bytes += bytes;
    }
    this.#reader?.grew(event);
  }

  /** The response: the last event. `failed`: it is our own and not the server's. */
  end(response: JsonRpcResponse, failed = false): void {
    if (this.#ended) return;
    const event = { n: ++this.#last, data: JSON.stringify(response), failed: failed ? 1 : 0 };
    this.#ended = true;
    const bytes = this.#bytes + Buffer.byteLength(event.data);
    this.#database.end(this.id, event, bytes);
    this.#row = [];
    this.#reader?.grew(event);
    this.#onEnd(bytes);
  }

  /** The first kept event after the nth. */
  after(n: number): StoredEvent | undefined {
    return this.#database.after(this.id, n);
  }

  join(reader: StreamReader): void {
    const older = this.#reader;
    this.#reader = reader;
    older?.replaced();
  }

  leave(reader: StreamReader): void {
    if (this.#reader === reader) this.#reader = undefined;
  }

  #drop(kept: readonly Kept[]): void {
    const gone = new Set(kept.map(({ n }) => n));
    this.#database.drop(this.id, [...gone]);
    this.#row = this.#row.filter(({ n }) => !gone.has(n));
    for (const { bytes } of kept) this.#bytes -= bytes;
  }
}
