/**
 * Owns, within one Session or Lane object, the lists that processes called into question: the process that spoke is asked what it
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

/** Where the process is that spoke, and whose view of the server it is asked for; null when there is none to be asked. */
export type Ask = () => Promise<{ readonly view: View; readonly reach: Reach } | null>;

export class Doubts {
  readonly #env: Env;
  readonly #waitUntil: (promise: Promise<unknown>) => void;
  /** The newest word, and how to ask about it, for each server, principal and kind at hand. */
  readonly #raised = new Map<string, { readonly ask: Ask; readonly at: number | null }>();

  constructor(env: Env, waitUntil: (promise: Promise<unknown>) => void) {
    this.#env = env;
    this.#waitUntil = waitUntil;
  }

  /** Resolves when the copies are in doubt, also should this object end in the next moment. */
  async raise(whose: Omit<View, 'variant'>, kind: Kind, starting: boolean, ask: Ask): Promise<void> {
    const at = starting ? null : await directoryOf(this.#env).doubt(whose, kind);
    const key = JSON.stringify([whose.server, whose.principal, kind]);
    const running = this.#raised.get(key);
    this.#raised.set(key, { ask, at: at ?? running?.at ?? null });
    if (!running) this.#waitUntil(this.#settle(key, kind));
  }

  async #settle(key: string, kind: Kind): Promise<void> {
    let settled: object | undefined;
    for (let doubt = this.#raised.get(key); doubt && doubt !== settled; doubt = this.#raised.get(key)) {
      settled = doubt;
      const { ask, at } = doubt;
      const found = await ask().catch(() => null);
      if (!found) break;
      await reconcile(this.#env, found.view, kind, found.reach, at);
    }
    this.#raised.delete(key);
  }
}
