/**
 * Owns what servers say to a session unasked: kept until its client's own stream (GET) takes it, and after that for as long
 * as the client may come back and say that it did not arrive.
 *
 * - `queued(seq INTEGER PRIMARY KEY AUTOINCREMENT, session TEXT, bytes INTEGER, droppable INTEGER, text TEXT, stream TEXT)`:
 *   `stream` names the client's stream on which the message was sent; null while there was none. `seq` is its place.
 * - `listener(session TEXT PRIMARY KEY, stream TEXT)`: the client's newest stream.
 *
 * Invariants: a message goes on one stream only. A stream can be resumed until a fresh one is opened; what was sent on it
 * is then given up, for nobody may replay it elsewhere (MCP 2025-11-25, basic/transports, "Resumability and Redelivery").
 * At most `ROOM` a session: what was sent already gives way first, then the oldest notifications.
 */
import { makeRoom } from '../../shared/make-room.ts';
import type { Sql } from './sql.ts';

export const ROOM = { messages: 256, bytes: 1024 * 1024 } as const;

export const OUTGOING_TABLES = `
  CREATE TABLE IF NOT EXISTS queued (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, session TEXT NOT NULL, bytes INTEGER NOT NULL,
    droppable INTEGER NOT NULL, text TEXT NOT NULL, stream TEXT);
  CREATE INDEX IF NOT EXISTS queued_session ON queued (session);
  CREATE TABLE IF NOT EXISTS listener (session TEXT PRIMARY KEY, stream TEXT NOT NULL);
`;

export interface OutgoingMessage {
  readonly n: number;
  readonly text: string;
}

export class Outgoing {
  readonly #sql: Sql;

  /** The tables must exist whenever a method is called. */
  constructor(sql: Sql) {
    this.#sql = sql;
  }

  /** Keeps a message, sent on `stream` or waiting for one (null). Undefined when it does not fit. */
  keep(session: string, text: string, droppable: boolean, stream: string | null): number | undefined {
    const rows = this.#sql
      .exec<{ n: number; bytes: number; droppable: number }>(
        `SELECT seq AS n, bytes, MAX(droppable, stream IS NOT NULL) AS droppable FROM queued
         WHERE session = ? ORDER BY stream IS NULL, seq`,
        session,
      )
      .toArray()
      .map((row) => ({ ...row, droppable: row.droppable === 1 }));
    const bytes = new TextEncoder().encode(text).byteLength;
    const held = { messages: rows.length, bytes: rows.reduce((sum, row) => sum + row.bytes, 0) };
    const { drop, keep } = makeRoom(rows, { bytes }, held, ROOM);
    if (!keep) return undefined;
    for (const { n } of drop) this.#sql.exec('DELETE FROM queued WHERE seq = ?', n);
    return this.#sql
      .exec<{ seq: number }>(
        'INSERT INTO queued (session, bytes, droppable, text, stream) VALUES (?, ?, ?, ?, ?) RETURNING seq',
        session,
        bytes,
        droppable ? 1 : 0,
        text,
        stream,
      )
      .one().seq;
  }

  /** Begins a fresh stream and gives what waited, which counts as sent on it. */
  open(session: string, stream: string): OutgoingMessage[] {
    this.#sql.exec('DELETE FROM queued WHERE session = ? AND stream IS NOT NULL', session);
    this.#sql.exec('INSERT OR REPLACE INTO listener (session, stream) VALUES (?, ?)', session, stream);
    return this.#take(session, stream);
  }

  /** Goes on with a stream whose client has everything up to `n`. Undefined when it is not the newest one. */
  resume(session: string, stream: string, n: number): OutgoingMessage[] | undefined {
    const [listener] = this.#sql
      .exec<{ stream: string }>('SELECT stream FROM listener WHERE session = ?', session)
      .toArray();
    if (listener?.stream !== stream) return undefined;
    this.#sql.exec('DELETE FROM queued WHERE session = ? AND stream = ? AND seq <= ?', session, stream, n);
    return this.#take(session, stream);
  }

  remove(session: string): void {
    this.#sql.exec('DELETE FROM queued WHERE session = ?', session);
    this.#sql.exec('DELETE FROM listener WHERE session = ?', session);
  }

  #take(session: string, stream: string): OutgoingMessage[] {
    this.#sql.exec('UPDATE queued SET stream = ? WHERE session = ? AND stream IS NULL', stream, session);
    return this.#sql
      .exec<{ n: number; text: string }>('SELECT seq AS n, text FROM queued WHERE session = ? ORDER BY seq', session)
      .toArray();
  }
}
