/**
 * Owns which machines of single callers are known, and how long they are kept: bounded in number, and one whose session is long
 * forgotten goes. What is on the disk of them is `places.ts`.
 */
import { MoorageError } from '../shared/errors.ts';
import { noteUse, type Place } from './places.ts';
import type { Own } from './server.ts';

/** Machines of single callers that one origin keeps, at most. */
const MAX_OWN_MACHINES = 10_000;
/** A session that was used within this time may live, in milliseconds: the edge ends silent ones after a day. */
const SESSION_KEPT_MS = 7 * 86_400_000;
const NOTE_USE_MS = 60_000;

export class CallersMachines {
  /** By their keys; and when their use was last noted. */
  readonly #known = new Map<string, { readonly own: Own; notedAt: number }>();

  /** Whose the machine of this key is. */
  ownOf(key: string): Own | undefined {
    return this.#known.get(key)?.own;
  }

  /** Makes one known that is there, or will be. */
  add({ key, own }: Place, now: number): void {
    this.#known.set(key, { own, notedAt: now });
  }

  delete(key: string): void {
    this.#known.delete(key);
  }

  /** Notes in its folder that a machine is used, now and then. @returns whether it is known. */
  use(key: string, dir: string, now: number): boolean {
    const known = this.#known.get(key);
    if (!known) return false;
    if (now - known.notedAt < NOTE_USE_MS) return true;
    known.notedAt = now;
    noteUse(dir, now);
    return true;
  }

  /** @throws MoorageError `overloaded` when there may be no more. */
  requireRoom(): void {
    if (this.#known.size < MAX_OWN_MACHINES) return;
    throw new MoorageError(
      'overloaded',
      'This origin keeps as many machines of single callers as it may. Its owner can remove some: moorage machines.',
    );
  }
}

/** Whether the session whose machine it is has ended without the origin hearing of it. Times in milliseconds. */
export const isForgotten = ({ own }: Place, usedAt: number, now: number): boolean =>
  own.isolation === 'session' && now - usedAt > SESSION_KEPT_MS;
