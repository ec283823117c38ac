/**
 * Owns what a Session object keeps on disk.
 *
 * - `session(id TEXT PRIMARY KEY, state TEXT, due INTEGER)`: `state` is `LiveSession` as JSON; `due` is when it is looked
 *   at again, in milliseconds.
 * - the tables of `outgoing.ts` (messages on the sessions' own streams) and `calls.ts` (streams of edge servers' calls).
 *
 * Invariant: an object that holds no session has no tables and no alarm, so a stray id leaves nothing behind.
 */
import { CALL_TABLES, Calls } from './calls.ts';
import { OUTGOING_TABLES, Outgoing } from './outgoing.ts';
import { dueAt, type LiveSession, type SessionState } from './session.ts';
import type { ObjectStorage, Sql } from './sql.ts';

export class SessionStore {
  /** Both are asked only about sessions that are there. */
  readonly outgoing: Outgoing;
  readonly calls: Calls;
  readonly #storage: ObjectStorage;
  readonly #sql: Sql;
  #ready: boolean;

  constructor(storage: ObjectStorage) {
    this.#storage = storage;
    this.#sql = storage.sql;
    this.outgoing = new Outgoing(this.#sql);
    this.calls = new Calls(this.#sql);
    this.#ready = this.#sql.exec("SELECT 1 FROM sqlite_master WHERE name = 'session'").toArray().length > 0;
    if (this.#ready) this.#migrate();
  }

  load(id: string): SessionState {
    if (!this.#ready) return { status: 'absent' };
    const [row] = this.#sql.exec<{ state: string }>('SELECT state FROM session WHERE id = ?', id).toArray();
    // Sessions of before these members existed were opened by a process, and nobody knows what it told.
    if (!row) return { status: 'absent' };
    const stored = JSON.parse(row.state) as Omit<LiveSession, 'told' | 'asleep'> & Partial<LiveSession>;
    return { told: null, asleep: false, ...stored };
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
    this.outgoing.remove(id);
    this.calls.remove(id);
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

  #prepare(): void {
    if (this.#ready) return;
    this.#sql.exec(
      'CREATE TABLE IF NOT EXISTS session (id TEXT PRIMARY KEY, state TEXT NOT NULL, due INTEGER NOT NULL)',
    );
    this.#sql.exec('CREATE INDEX IF NOT EXISTS session_due ON session (due)');
    this.#sql.exec(OUTGOING_TABLES);
    this.#sql.exec(CALL_TABLES);
    this.#ready = true;
  }

  /** Tables of before streams could be resumed: messages had no stream, and calls were not written down. */
  #migrate(): void {
    const columns = this.#sql.exec<{ name: string }>("SELECT name FROM pragma_table_info('queued')").toArray();
    if (!columns.some(({ name }) => name === 'stream')) this.#sql.exec('ALTER TABLE queued ADD COLUMN stream TEXT');
    this.#sql.exec(OUTGOING_TABLES);
    this.#sql.exec(CALL_TABLES);
  }
}
