/**
 * Owns whether anything was asked in a lane that only the server's process can answer. What that process has become since
 * then is its own: its lists are asked of it while it runs, as those of a session that has woken.
 *
 * Table `woken(one INTEGER PRIMARY KEY)`: that it exists is the answer.
 */
export class Woken {
  readonly #sql: SqlStorage;
  #is: boolean;

  constructor(sql: SqlStorage) {
    this.#sql = sql;
    this.#is = sql.exec("SELECT 1 FROM sqlite_master WHERE name = 'woken'").toArray().length > 0;
  }

  get is(): boolean {
    return this.#is;
  }

  set(): void {
    if (this.#is) return;
    this.#sql.exec('CREATE TABLE IF NOT EXISTS woken (one INTEGER PRIMARY KEY)');
    this.#is = true;
  }
}
