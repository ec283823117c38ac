/**
 * Owns what a Lane object keeps on disk: the parameters that travel in headers, of the tools whose lists have passed.
 *
 * Table `parameters(tool TEXT PRIMARY KEY, json TEXT)`, `json` being `Parameter[]`. It exists once a tool has any, and
 * holds at most `MAX_TOOLS`.
 */
import type { DeclaredTool, Parameter } from '../modern/parameters.ts';

const MAX_TOOLS = 1000;

export class ParameterStore {
  readonly #sql: SqlStorage;
  #ready: boolean;

  constructor(sql: SqlStorage) {
    this.#sql = sql;
    this.#ready = sql.exec("SELECT 1 FROM sqlite_master WHERE name = 'parameters'").toArray().length > 0;
  }

  /** Whether any tool has parameters, so that a list without them is news. */
  get any(): boolean {
    return this.#ready;
  }

  of(tool: string): readonly Parameter[] {
    if (!this.#ready) return [];
    const [row] = this.#sql.exec<{ json: string }>('SELECT json FROM parameters WHERE tool = ?', tool).toArray();
    return row ? (JSON.parse(row.json) as Parameter[]) : [];
  }

  learn(tools: readonly DeclaredTool[]): void {
    if (!this.#ready) {
      this.#sql.exec('CREATE TABLE IF NOT EXISTS parameters (tool TEXT PRIMARY KEY, json TEXT NOT NULL)');
      this.#ready = true;
    }
    for (const { tool, parameters } of tools) {
      // A list is read far more often than it changes.
      if (JSON.stringify(this.of(tool)) === JSON.stringify(parameters)) continue;
      if (parameters.length === 0) this.#sql.exec('DELETE FROM parameters WHERE tool = ?', tool);
      else this.#sql.exec('INSERT OR REPLACE INTO parameters VALUES (?, ?)', tool, JSON.stringify(parameters));
    }
    this.#sql.exec(
      'DELETE FROM parameters WHERE rowid NOT IN (SELECT rowid FROM parameters ORDER BY rowid DESC LIMIT ?)',
      MAX_TOOLS,
    );
  }
}
