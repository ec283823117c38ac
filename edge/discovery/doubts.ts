/**
 * Owns, within one Session object, the lists that processes called into question: the process that spoke is asked what it
 * lists now while nobody waits for it, and the copies are in doubt meanwhile. They are not where the process only starts:
 * many register what they have one by one, and say each time that a list changed.
 *
 * Bound: one question at a time for a server and kind; a process that says so again meanwhile is asked once more.
 */
import { directoryOf } from '../directory/object.ts';
import type { Env } from '../env.ts';
import type { Kind } from './question.ts';
import { type Reach, reconcile } from './reconcile.ts';
import type { View } from './view.ts';

/** Where a session's process is and what it sees of the server, or null when there is none to be asked. */
export type ReachOf = (session: string) => Promise<{ readonly view: View; readonly reach: Reach } | null>;

export class Doubts {
  readonly #env: Env;
  readonly #reachOf: ReachOf;
  readonly #waitUntil: (promise: Promise<unknown>) => void;
  /** The newest word, and a session to ask by, for each server and kind at hand. */
  readonly #raised = new Map<string, { readonly session: string; readonly at: number | null }>();

  constructor(env: Env, reachOf: ReachOf, waitUntil: (promise: Promise<unknown>) => void) {
    this.#env = env;
    this.#reachOf = reachOf;
    this.#waitUntil = waitUntil;
  }

  /** Resolves when the copies are in doubt, also should this object end in the next moment. */
  async raise(server: string, kind: Kind, session: string, starting: boolean): Promise<void> {
    const at = starting ? null : await directoryOf(this.#env).doubt(server, kind);
    const key = JSON.stringify([server, kind]);
    const running = this.#raised.get(key);
    this.#raised.set(key, { session, at: at ?? running?.at ?? null });
    if (!running) this.#waitUntil(this.#settle(key, kind));
  }

  async #settle(key: string, kind: Kind): Promise<void> {
    let settled: object | undefined;
    for (let doubt = this.#raised.get(key); doubt && doubt !== settled; doubt = this.#raised.get(key)) {
      settled = doubt;
      const { session, at } = doubt;
      const found = await this.#reachOf(session).catch(() => null);
      if (!found) break;
      await reconcile(this.#env, found.view, kind, found.reach, at);
    }
    this.#raised.delete(key);
  }
}
