/**
 * Owns whether a server answers: it is asked by the protocol (`ping`, or `server/discover` where there is none), and only
 * when calls wait and it has been quiet for long. So an idle server is never asked, nothing is woken, and a machine sleeps
 * as if nobody watched.
 *
 * States: at ease (no call waits), waiting (until QUIET_MS without a word), asked (until ANSWER_MS), silent (said once, until
 * any word of the server).
 */

/** How long a server may say nothing while calls wait, in milliseconds; and then how long it may take to answer. */
export const QUIET_MS = 30_000;
export const ANSWER_MS = 10_000;

export interface HealthOptions {
  /** Sends the question. */
  readonly ask: () => void;
  /** Takes it back: nobody waits for its answer any more. */
  readonly forget: () => void;
  /** Whether the server's machine sleeps: then it is not asked. */
  readonly asleep: () => boolean;
  /** It has not answered for so long, in milliseconds. */
  readonly silent: (forMs: number) => void;
  readonly now: () => number;
}

export class Health {
  readonly #options: HealthOptions;
  #waiting = 0;
  /** When it was last known to be well. */
  #wellAt = 0;
  #askedAt: number | undefined;
  #silentSince: number | undefined;
  #timer: NodeJS.Timeout | undefined;

  constructor(options: HealthOptions) {
    this.#options = options;
  }

  /** Since when it has not answered, in milliseconds; undefined: it is well, as far as anybody knows. */
  get silentSince(): number | undefined {
    return this.#silentSince;
  }

  /** A call begins to wait. */
  began(): void {
    this.#waiting += 1;
    if (this.#waiting > 1) return;
    this.#wellAt = this.#options.now();
    this.#watch(QUIET_MS);
  }

  /** A call is over, whatever became of it. */
  ended(): void {
    this.#waiting -= 1;
    if (this.#waiting > 0) return;
    this.#rest();
  }

  /** The server said something. */
  heard(): void {
    this.#wellAt = this.#options.now();
    this.#silentSince = undefined;
    this.#takeBack();
  }

  /** Nobody will hear of it any more. */
  close(): void {
    this.#waiting = 0;
    this.#askedAt = undefined;
    clearTimeout(this.#timer);
  }

  #rest(): void {
    clearTimeout(this.#timer);
    this.#takeBack();
  }

  #takeBack(): void {
    if (this.#askedAt === undefined) return;
    this.#askedAt = undefined;
    this.#options.forget();
  }

  #watch(afterMs: number): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#look(), afterMs).unref();
  }

  #look(): void {
    const now = this.#options.now();
    if (this.#askedAt !== undefined) {
      // What it was asked is taken back: its answer must not keep a machine awake for ever.
      this.#takeBack();
      this.#silentSince ??= this.#wellAt;
      this.#options.silent(now - this.#wellAt);
      this.#watch(QUIET_MS);
      return;
    }
    const quietMs = now - this.#wellAt;
    if (quietMs < QUIET_MS || this.#options.asleep()) {
      this.#watch(Math.max(1_000, QUIET_MS - quietMs));
      return;
    }
    this.#askedAt = now;
    this.#options.ask();
    this.#watch(ANSWER_MS);
  }
}
