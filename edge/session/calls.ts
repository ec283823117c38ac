/**
 * Owns the resumable streams of edge servers' calls: their events, written down before the client sees them.
 *
 * - `call(stream TEXT PRIMARY KEY, session TEXT, request TEXT, ended_at INTEGER)`: `request` is the id of the client's
 *   request as JSON; `ended_at` is null while the call runs, milliseconds after it.
 * - `call_event(stream TEXT, n INTEGER, part INTEGER, droppable INTEGER, text TEXT, PRIMARY KEY (stream, n, part))`: `text`
 *   is the message as JSON, in parts because a row of a Durable Object has 2 MB at most.
 *
 * Invariants: a stream ends with one response, `outcome_unknown` when its call was lost; a stream is found only with its
 * session. Bounds: `CALL_ROOM` for what a call says before its response; `ENDED_CALLS` streams and `ENDED_BYTES` a session,
 * `KEPT_MS` each, once they have ended (what is too old goes when the session's next stream begins, or with the session).
 */
import { MoorageError } from '../../shared/errors.ts';
import { failure, type RequestId } from '../../shared/jsonrpc.ts';
import { makeRoom } from '../../shared/make-room.ts';
import type { Sql } from './sql.ts';

export const CALL_ROOM = { messages: 200, bytes: 1024 * 1024 } as const;
export const ENDED_CALLS = 64;
export const ENDED_BYTES = 32 * 1024 * 1024;
export const KEPT_MS = 15 * 60 * 1000;
/** UTF-16 units of one row's text: 1.5 MB in UTF-8 at worst. */
const PART_LENGTH = 500_000;

/** The place of a lost call's last event: after whatever the client saw and was not kept. */
const BEYOND = 1_000_000;

export const CALL_TABLES = `
  CREATE TABLE IF NOT EXISTS call (
    stream TEXT PRIMARY KEY, session TEXT NOT NULL, request TEXT NOT NULL, ended_at INTEGER);
  CREATE INDEX IF NOT EXISTS call_session ON call (session);
  CREATE TABLE IF NOT EXISTS call_event (
    stream TEXT NOT NULL, n INTEGER NOT NULL, part INTEGER NOT NULL, droppable INTEGER NOT NULL, text TEXT NOT NULL,
    PRIMARY KEY (stream, n, part));
`;

/** One event of a call. */
export interface CallEvent {
  readonly n: number;
  readonly text: string;
}

export class Calls {
  readonly #sql: Sql;

  /** The tables must exist whenever a method is called. */
  constructor(sql: Sql) {
    this.#sql = sql;
  }

  begin(session: string, stream: string, request: string, now: number): void {
    this.#sweep(session, now);
    this.#sql.exec('INSERT OR IGNORE INTO call (stream, session, request) VALUES (?, ?, ?)', stream, session, request);
  }

  /** Writes down an event; `last` is the response. */
  record(stream: string, { n, text }: CallEvent, kind: 'droppable' | 'kept' | 'last', now: number): void {
    const running = this.#sql.exec('SELECT 1 FROM call WHERE stream = ? AND ended_at IS NULL', stream).toArray();
    if (running.length === 0 || (kind !== 'last' && !this.#room(stream, text))) return;
    for (let part = 0; part === 0 || part * PART_LENGTH < text.length; part++) {
      this.#sql.exec(
        'INSERT INTO call_event (stream, n, part, droppable, text) VALUES (?, ?, ?, ?, ?)',
        stream,
        n,
        part,
        kind === 'droppable' ? 1 : 0,
        text.slice(part * PART_LENGTH, (part + 1) * PART_LENGTH),
      );
    }
    if (kind === 'last') this.#sql.exec('UPDATE call SET ended_at = ? WHERE stream = ?', now, stream);
  }

  /** Whether a session's call runs or has ended; undefined where there is none (any more). */
  find(session: string, stream: string): 'running' | 'ended' | undefined {
    const [row] = this.#sql
      .exec<{ ended_at: number | null }>('SELECT ended_at FROM call WHERE stream = ? AND session = ?', stream, session)
      .toArray();
    if (!row) return undefined;
    return row.ended_at === null ? 'running' : 'ended';
  }

  /** The events after the nth. */
  after(stream: string, n: number): CallEvent[] {
    const rows = this.#sql
      .exec<{ n: number; text: string }>(
        'SELECT n, text FROM call_event WHERE stream = ? AND n > ? ORDER BY n, part',
        stream,
        n,
      )
      .toArray();
    return [...Map.groupBy(rows, (row) => row.n)].map(([at, parts]) => ({
      n: at,
      text: parts.map(({ text }) => text).join(''),
    }));
  }

  /** Ends the stream of a call that was lost. Gives its last event, or undefined when it had ended. */
  abandon(session: string, stream: string, now: number): CallEvent | undefined {
    if (this.find(session, stream) !== 'running') return undefined;
    const { request } = this.#sql.exec<{ request: string }>('SELECT request FROM call WHERE stream = ?', stream).one();
    const { last } = this.#sql
      .exec<{ last: number | null }>('SELECT MAX(n) AS last FROM call_event WHERE stream = ?', stream)
      .one();
    const error = new MoorageError(
      'outcome_unknown',
      'The edge was interrupted while the call was running. Outcome unknown: check before you repeat it.',
      { cause: 'edge_gone', retryable: false },
    );
    const event = { n: (last ?? 0) + BEYOND, text: JSON.stringify(failure(JSON.parse(request) as RequestId, error)) };
    this.record(stream, event, 'last', now);
    return event;
  }

  remove(session: string): void {
    this.#sql.exec('DELETE FROM call_event WHERE stream IN (SELECT stream FROM call WHERE session = ?)', session);
    this.#sql.exec('DELETE FROM call WHERE session = ?', session);
  }

  /** Makes room for what a call says before its response. False when it does not fit. */
  #room(stream: string, text: string): boolean {
    const rows = this.#sql
      .exec<{ n: number; bytes: number; droppable: number }>(
        `SELECT n, SUM(LENGTH(CAST(text AS BLOB))) AS bytes, MAX(droppable) AS droppable FROM call_event
         WHERE stream = ? GROUP BY n ORDER BY n`,
        stream,
      )
      .toArray()
      .map((row) => ({ ...row, droppable: row.droppable === 1 }));
    const held = { messages: rows.length, bytes: rows.reduce((sum, row) => sum + row.bytes, 0) };
    const bytes = new TextEncoder().encode(text).byteLength;
    const { drop, keep } = makeRoom(rows, { bytes }, held, CALL_ROOM);
    for (const { n } of drop) this.#sql.exec('DELETE FROM call_event WHERE stream = ? AND n = ?', stream, n);
    return keep;
  }

  #sweep(session: string, now: number): void {
    const ended = this.#sql
      .exec<{ stream: string; endedAt: number; bytes: number }>(
        `SELECT stream, ended_at AS endedAt,
           (SELECT COALESCE(SUM(LENGTH(CAST(text AS BLOB))), 0) FROM call_event WHERE call_event.stream = call.stream) AS bytes
         FROM call WHERE session = ? AND ended_at IS NOT NULL ORDER BY ended_at DESC`,
        session,
      )
      .toArray();
    let bytes = 0;
    ended.forEach((call, index) => {
      bytes += call.bytes;
      if (index < ENDED_CALLS && bytes <= ENDED_BYTES && call.endedAt + KEPT_MS > now) return;
      this.#sql.exec('DELETE FROM call_event WHERE stream = ?', call.stream);
      this.#sql.exec('DELETE FROM call WHERE stream = ?', call.stream);
    });
  }
}
