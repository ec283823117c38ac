/**
 * Owns what is known of servers that died, by server and machine: who hears of an end, who is refused, who is told.
 * `supervisor/crash-loop.ts` decides.
 */
import { MoorageError } from '../../shared/errors.ts';
import type { Log } from '../log.ts';
import { type Crashes, crashed, type End, isLoop, tellLoop, waitOf } from '../supervisor/crash-loop.ts';
import type { RunningMachine } from '../vm/driver.ts';

/** A server in a machine. */
export interface Placed {
  readonly name: string;
  readonly machine: string;
}

/** Servers in machines whose crashes are remembered, at most. */
const MAX_REMEMBERED = 1_000;

export class CrashWatch {
  readonly #log: Log;
  readonly #now: () => number;
  /** The latest ones are at the end. */
  readonly #crashes = new Map<string, Placed & { readonly crashes: Crashes }>();

  constructor(options: { log: Log; now: () => number }) {
    this.#log = options.log;
    this.#now = options.now;
  }

  /** @throws MoorageError `server_failed` for one whose pause is not over. */
  refuseLoop(server: Placed): void {
    const { name } = server;
    const crashes = this.#crashes.get(keyOf(server))?.crashes;
    const retryAfterMs = waitOf(crashes, this.#now());
    if (crashes === undefined || retryAfterMs === 0) return;
    throw new MoorageError(
      'server_failed',
      `The server "${name}" is in a crash loop: ${crashes.count} times in a row, the last time it ${crashes.how}. It may be started again in ${Math.ceil(retryAfterMs / 1000)} s. Its owner finds its last words with: moorage logs ${name}`,
      { cause: 'crash_loop', crashes: crashes.count, retryAfterMs },
    );
  }

  /**
   * What hears that a process which starts now has died by itself, and how many requests it answered, `initialize` among
   * them. The end of its machine is not its own.
   */
  started(server: Placed, machine: RunningMachine): (how: string, answers: number) => void {
    const began = this.#now();
    let isGone = false;
    void machine.gone.then(() => {
      isGone = true;
    });
    // Its machine's end is known a moment after its own.
    return (how, answers) =>
      setImmediate(() => !isGone && this.died(server, { livedMs: this.#now() - began, wasOfUse: answers > 1, how }));
  }

  /** A process of the server has ended by itself. */
  died(server: Placed, end: End): void {
    const { name, machine } = server;
    const key = keyOf(server);
    const crashes = crashed(this.#crashes.get(key)?.crashes, end, this.#now());
    this.#crashes.delete(key);
    if (crashes !== undefined) this.#crashes.set(key, { name, machine, crashes });
    const [oldest] = this.#crashes.keys();
    if (this.#crashes.size > MAX_REMEMBERED && oldest !== undefined) this.#crashes.delete(oldest);
    if (!isLoop(crashes)) return;
    const text = `crash loop: ${tellLoop(crashes, this.#now())}`;
    this.#log.warn(`server ${name} in machine ${machine}: ${text}`);
    this.#log.server(name, machine, `(moorage) ${text}`);
  }

  /** Servers that keep dying, each with a sentence. */
  loops(): (Placed & { readonly text: string })[] {
    return [...this.#crashes.values()].flatMap(({ name, machine, crashes }) =>
      isLoop(crashes) ? [{ name, machine, text: tellLoop(crashes, this.#now()) }] : [],
    );
  }
}

const keyOf = ({ name, machine }: Placed): string => JSON.stringify([name, machine]);
