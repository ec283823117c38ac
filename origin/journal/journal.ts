/**
 * Owns the resumable streams of this agent: those whose call runs, and those that have ended and are kept for a while.
 *
 * Invariants: a stream is found only with the session that it belongs to; every stream ends with exactly one response, also
 * when the agent died under its call: then with `outcome_unknown`, the next time that the journal is opened.
 */
import { randomBytes } from 'node:crypto';
import { MoorageError } from '../../shared/errors.ts';
import { failure, type JsonRpcRequest } from '../../shared/jsonrpc.ts';
import type { Log } from '../log.ts';
import { givenUp, SESSION_BYTES, SWEEP_EVERY_MS, TOTAL_BYTES, TOTAL_STREAMS } from './bounds.ts';
import { Database, type Orphan } from './database.ts';
import { Stream } from './stream.ts';

/** The place of a lost call's last event: after whatever its reader saw and was not kept. */
const BEYOND = 1_000_000;

export interface JournalOptions {
  /** Path of its file. One agent at a time uses it. */
  readonly path: string;
  readonly log: Log;
  readonly now?: () => number;
}

export class Journal {
  readonly #database: Database;
  readonly #now: () => number;
  readonly #running = new Map<string, { readonly session: string; readonly stream: Stream }>();
  readonly #timer: NodeJS.Timeout;
  /** What the ended streams hold, by session and in all. */
  #endedBytes = new Map<string, number>();
  #total = { streams: 0, bytes: 0 };

  constructor({ path, log, now = Date.now }: JournalOptions) {
    this.#now = now;
    this.#database = new Database(path, log, now);
    for (const orphan of this.#database.orphans()) this.#endOrphan(orphan);
    this.sweep();
    this.#timer = setInterval(() => this.sweep(), SWEEP_EVERY_MS).unref();
  }

  /** The stream for the answer to a request. */
  begin(session: string, request: JsonRpcRequest): Stream {
    const id = randomBytes(12).toString('base64url');
    const stream = new Stream(id, this.#database, (bytes) => this.#ended(session, id, bytes));
    this.#running.set(id, { session, stream });
    this.#database.begin(id, session, request.id, request.method);
    return stream;
  }

  /** A session's stream, running or ended, or undefined where there is none (any more). */
  find(session: string, id: string): Stream | undefined {
    const running = this.#running.get(id);
    if (running) return running.session === session ? running.stream : undefined;
    const ended = this.#database.ended(session, id);
    return ended && new Stream(id, this.#database, () => undefined, ended);
  }

  /** Forgets a session's ended streams; nobody can ask for them any more. */
  forget(session: string): void {
    this.#remove(this.#database.endedStreams(session).map(({ id }) => id));
    this.#count();
  }

  /** Gives up what is too old or too much. */
  sweep(): void {
    const streams = this.#database.endedStreams();
    const bytes = streams.reduce((sum, stream) => sum + stream.bytes, 0);
    const total = { streams: streams.length + this.#running.size, bytes };
    this.#remove(givenUp(streams, total, this.#now()));
    this.#count();
  }

  close(): void {
    clearInterval(this.#timer);
    this.#database.close();
  }

  #ended(session: string, id: string, bytes: number): void {
    this.#running.delete(id);
    const held = (this.#endedBytes.get(session) ?? 0) + bytes;
    this.#endedBytes.set(session, held);
    this.#total = { streams: this.#total.streams + 1, bytes: this.#total.bytes + bytes };
    if (held > SESSION_BYTES || this.#total.streams > TOTAL_STREAMS || this.#total.bytes > TOTAL_BYTES) this.sweep();
  }

  #endOrphan({ id, request, method, last, bytes }: Orphan & { last: number; bytes: number }): void {
    const error = new MoorageError(
      'outcome_unknown',
      `The origin's agent ended while "${method}" was running. Outcome unknown: check before you repeat it.`,
      { cause: 'agent_gone', retryable: method !== 'tools/call' },
    );
    const data = JSON.stringify(failure(request, error));
    this.#database.end(id, { n: last + BEYOND, data, failed: 1 }, bytes + data.length);
  }

  #remove(ids: readonly string[]): void {
    if (ids.length > 0) this.#database.remove(ids);
  }

  #count(): void {
    this.#endedBytes = new Map();
    this.#total = { streams: 0, bytes: 0 };
    for (const { session, bytes } of this.#database.endedStreams()) {
      this.#endedBytes.set(session, (this.#endedBytes.get(session) ?? 0) + bytes);
      this.#total = { streams: this.#total.streams + 1, bytes: this.#total.bytes + bytes };
    }
  }
}
