/**
 * Owns what a Session object keeps on disk.
 *
 * - `session(id TEXT PRIMARY KEY, state TEXT, due INTEGER)`: `state` is `LiveSession` as JSON; `due` is when it is looked
 *   at again, in milliseconds.
 * - `queued(seq INTEGER PRIMARY KEY AUTOINCREMENT, session TEXT, bytes INTEGER, droppable INTEGER, text TEXT)`: messages
 *   for clients without a stream.
 *
 * Invariant: an object that holds no session has no tables and no alarm, so a stray id leaves nothing behind.
 */
import { makeRoom } from './queue.ts';
import { dueAt, type LiveSession, type SessionState } from './session.ts';

export class SessionStore {
  readonly #storage: DurableObjectStorage;
  readonly #sql: SqlStorage;
  #ready: boolean;

  constructor(storage: DurableObjectStorage) {
    this.#storage = storage;
    this.#sql = storage.sql;
    this.#ready = this.#sql.exec("SELECT 1 FROM sqlite_master WHERE name = 'session'").toArray().length > 0;
  }

  load(id: string): SessionState {
    if (!this.#ready) return { status: 'absent' };
    const [row] = this.#sql.exec<{ state: string }>('SELECT state FROM session WHERE id = ?', id).toArray();
    return row ? (JSON.parse(row.state) as LiveSession) : { status: 'absent' };
  }

  save(id: string, state: LiveSession): void {
    this.#prepare();
    const due = dueAt(state);
    this.#sql.exec('INSERT OR REPLACE INTO session (id, state, due) VALUES (?, ?, ?)', id, JSON.stringify(state), due);
  }

  /** Removes a session and its messages; with the last one, everything. */
  async remove(id: string): Promise<void> {
    if (!this.#ready) return;
    this.#sql.exec('DELETE FROM session WHERE id = ?', id);
    this.#sql.exec('DELETE FROM queued WHERE session = ?', id);
    if (this.nextDue() !== null) return;
    this.#ready = false;
    // Both are issued before anything else can run, so a session that opens meanwhile is not swept away.
    await Promise.all([this.#storage.deleteAlarm(), this.#storage.deleteAll()]);
  }

  /** Ids of sessions that are due at `now`. */
  due(now: number): string[] {
    if (!this.#ready) return [];
    return this.#sql
      .exec<{ id: string }>('SELECT id FROM session WHERE due <= ?', now)
      .toArray()
      .map((row) => row.id);
  }

  /** When the next session is due, or null when there is none. */
  nextDue(): number | null {
    if (!this.#ready) return null;
    return this.#sql.exec<{ due: number | null }>('SELECT MIN(due) AS due FROM session').one().due;
  }

  /** Keeps a message for a client without a stream, within bounds. False when it was dropped. */
  enqueue(session: string, text: string, droppable: boolean): boolean {
    const rows = this.#sql
      .exec<{ seq: number; bytes: number; droppable: number }>(
        'SELECT seq, bytes, droppable FROM queued WHERE session = ? ORDER BY seq',
        session,
      )
      .toArray();
    const bytes = new TextEncoder().encode(text).byteLength;
    const room = makeRoom(
      rows.map((row) => ({ ...row, droppable: row.droppable === 1 })),
      { bytes, droppable },
    );
    for (const seq of room.drop) this.#sql.exec('DELETE FROM queued WHERE seq = ?', seq);
    if (room.keep) {
      this.#sql.exec(
        'INSERT INTO queued (session, bytes, droppable, text) VALUES (?, ?, ?, ?)',
        session,
        bytes,
        droppable ? 1 : 0,
        text,
      );
    }
    return room.keep;
  }

  /** Takes all messages that wait for a session, in order. */
  dequeue(session: string): string[] {
    if (!this.#ready) return [];
    const rows = this.#sql
      .exec<{ text: string }>('SELECT text FROM queued WHERE session = ? ORDER BY seq', session)
      .toArray();
    if (rows.length > 0) this.#sql.exec('DELETE FROM queued WHERE session = ?', session);
    return rows.map((row) => row.text);
  }

  #prepare(): void {
    if (this.#ready) return;
    this.#sql.exec(
      'CREATE TABLE IF NOT EXISTS session (id TEXT PRIMARY KEY, state TEXT NOT NULL, due INTEGER NOT NULL)',
    );
    this.#sql.exec('CREATE INDEX IF NOT EXISTS session_due ON session (due)');
    this.#sql.exec(
      `CREATE TABLE IF NOT EXISTS queued (
         seq INTEGER PRIMARY KEY AUTOINCREMENT, session TEXT NOT NULL, bytes INTEGER NOT NULL,
         droppable INTEGER NOT NULL, text TEXT NOT NULL)`,
    );
    this.#sql.exec('CREATE INDEX IF NOT EXISTS queued_session ON queued (session)');
    this.#ready = true;
  }
}
