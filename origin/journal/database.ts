/**
 * Owns the journal's file: one SQLite database, written before anything reaches the wire.
 *
 * - `stream(id TEXT PRIMARY KEY, session TEXT, request TEXT, method TEXT, ended_at INTEGER, last INTEGER, bytes INTEGER)`:
 *   `request` is the id of the client's request as JSON; `ended_at` is null while the call runs, milliseconds after it;
 *   `last` and `bytes` are written when it ends.
 * - `event(stream TEXT, n INTEGER, data TEXT, failed INTEGER, PRIMARY KEY (stream, n))`: `data` is the message as JSON;
 *   `failed` is 1 where it is a failure of the agent's own.
 *
 * Durability: WAL with `synchronous = NORMAL`. The death of the agent loses nothing; a power cut may lose the last moment,
 * as it does for the call itself. A file that is no database any more, or has tables of another form (`user_version` is a
 * digest of the schema), is begun anew: it holds only what clients may still ask for. A full or broken disk costs resumability and never a call: writes answer whether they were done.
 */
import { createHash } from 'node:crypto';
import { rmSync } from 'node:fs';
import { DatabaseSync, type StatementSync } from 'node:sqlite';
import type { RequestId } from '../../shared/jsonrpc.ts';
import type { Log } from '../log.ts';
import type { EndedStream } from './bounds.ts';

const SCHEMA = `
  PRAGMA journal_mode = WAL;
  PRAGMA synchronous = NORMAL;
  CREATE TABLE IF NOT EXISTS stream (
    id TEXT PRIMARY KEY, session TEXT NOT NULL, request TEXT NOT NULL, method TEXT NOT NULL,
    ended_at INTEGER, last INTEGER NOT NULL DEFAULT 0, bytes INTEGER NOT NULL DEFAULT 0) WITHOUT ROWID;
  CREATE INDEX IF NOT EXISTS stream_session ON stream (session);
  CREATE TABLE IF NOT EXISTS event (
    stream TEXT NOT NULL, n INTEGER NOT NULL, data TEXT NOT NULL, failed INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (stream, n)) WITHOUT ROWID;
`;
const FORM = createHash('sha256').update(SCHEMA).digest().readInt32BE();
/** A full disk is told to the owner this often, in milliseconds. */
const WARN_EVERY_MS = 60_000;

export interface StoredEvent {
  readonly n: number;
  readonly data: string;
  /** 1 for a failure of the agent's own, 0 for what a server said. */
  readonly failed: number;
}

/** A stream whose call was running when the agent ended. */
export interface Orphan {
  readonly id: string;
  readonly request: RequestId;
  readonly method: string;
}

export class Database {
  readonly #db: DatabaseSync;
  readonly #log: Log;
  readonly #now: () => number;
  readonly #statements = new Map<string, StatementSync>();
  #warnedAt = Number.NEGATIVE_INFINITY;

  constructor(path: string, log: Log, now: () => number) {
    this.#log = log;
    this.#now = now;
    this.#db = openOrReplace(path, log);
  }

  begin(id: string, session: string, request: RequestId, method: string): boolean {
    const sql = 'INSERT INTO stream (id, session, request, method) VALUES (?, ?, ?, ?)';
    return this.#write(() => this.#sql(sql).run(id, session, JSON.stringify(request), method));
  }

  append(stream: string, n: number, data: string): boolean {
    return this.#write(() => this.#sql('INSERT INTO event (stream, n, data) VALUES (?, ?, ?)').run(stream, n, data));
  }

  drop(stream: string, ns: readonly number[]): void {
    const sql = this.#sql('DELETE FROM event WHERE stream = ? AND n = ?');
    this.#write(() => ns.forEach((n) => void sql.run(stream, n)));
  }

  /** The response and the end of its stream, both or neither. */
  end(stream: string, { n, data, failed }: StoredEvent, bytes: number): boolean {
    return this.#write(() => {
      this.#db.exec('BEGIN');
      try {
        const event = 'INSERT INTO event (stream, n, data, failed) VALUES (?, ?, ?, ?)';
        this.#sql(event).run(stream, n, data, failed);
        const sql = 'UPDATE stream SET ended_at = ?, last = ?, bytes = ? WHERE id = ?';
        this.#sql(sql).run(this.#now(), n, bytes, stream);
        this.#db.exec('COMMIT');
      } catch (error) {
        this.#db.exec('ROLLBACK');
        throw error;
      }
    });
  }

  // Rows are read as what their statement selects, from tables of this form (`FORM`): node:sqlite types no columns.

  /** The first event after the nth. */
  after(stream: string, n: number): StoredEvent | undefined {
    const sql = 'SELECT n, data, failed FROM event WHERE stream = ? AND n > ? ORDER BY n LIMIT 1';
    return this.#read(() => this.#sql(sql).get(stream, n)) as StoredEvent | undefined;
  }

  /** An ended stream of a session. */
  ended(session: string, id: string): { readonly last: number } | undefined {
    const sql = 'SELECT last FROM stream WHERE id = ? AND session = ? AND ended_at IS NOT NULL';
    return this.#read(() => this.#sql(sql).get(id, session)) as { last: number } | undefined;
  }

  /** Streams that have ended, of one session or of all. */
  endedStreams(session?: string): EndedStream[] {
    const columns = 'SELECT id, session, bytes, ended_at AS endedAt FROM stream WHERE ended_at IS NOT NULL';
    const rows =
      session === undefined ? this.#sql(columns).all() : this.#sql(`${columns} AND session = ?`).all(session);
    return rows as { id: string; session: string; bytes: number; endedAt: number }[];
  }

  remove(ids: readonly string[]): void {
    this.#write(() => {
      for (const id of ids) {
        this.#sql('DELETE FROM event WHERE stream = ?').run(id);
        this.#sql('DELETE FROM stream WHERE id = ?').run(id);
      }
    });
  }

  /** Streams without an end, with the place of their last event. */
  orphans(): (Orphan & { readonly last: number; readonly bytes: number })[] {
    const rows = this.#sql(
      `SELECT id, request, method,
         (SELECT COALESCE(MAX(n), 0) FROM event WHERE stream = id) AS last,
         (SELECT COALESCE(SUM(LENGTH(data)), 0) FROM event WHERE stream = id) AS bytes
       FROM stream WHERE ended_at IS NULL`,
    ).all() as { id: string; request: string; method: string; last: number; bytes: number }[];
    return rows.map((row) => ({ ...row, request: JSON.parse(row.request) as RequestId }));
  }

  close(): void {
    if (this.#db.isOpen) this.#db.close();
  }

  #sql(text: string): StatementSync {
    const known = this.#statements.get(text);
    if (known) return known;
    const statement = this.#db.prepare(text);
    this.#statements.set(text, statement);
    return statement;
  }

  #write(change: () => unknown): boolean {
    return (
      this.#read(() => {
        change();
        return true;
      }) === true
    );
  }

  #read<T>(read: () => T): T | undefined {
    try {
      return read();
    } catch (error) {
      if (this.#now() - this.#warnedAt > WARN_EVERY_MS) {
        this.#warnedAt = this.#now();
        this.#log.warn(`streams cannot be kept for clients that lose their connection: ${(error as Error).message}`);
      }
      return undefined;
    }
  }
}

function openOrReplace(path: string, log: Log): DatabaseSync {
  try {
    return open(path);
  } catch (error) {
    log.warn(`the journal of streams was unreadable and is begun anew: ${(error as Error).message}`);
    for (const suffix of ['', '-wal', '-shm']) rmSync(`${path}${suffix}`, { force: true });
    return open(path);
  }
}

function open(path: string): DatabaseSync {
  const db = new DatabaseSync(path, { timeout: 1_000 });
  try {
    const { user_version: found } = db.prepare('PRAGMA user_version').get() as { user_version: number };
    if (found !== FORM) db.exec('DROP TABLE IF EXISTS stream; DROP TABLE IF EXISTS event');
    db.exec(SCHEMA);
    db.exec(`PRAGMA user_version = ${FORM}`);
    return db;
  } catch (error) {
    db.close();
    throw error;
  }
}
