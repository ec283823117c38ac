/** Owns what an isolate remembers of the Directory's answers about enrolled origins, and for how long. Pure: time is passed in. */

/** How long an answer is believed, in milliseconds: a call may still go to an origin that was revoked meanwhile. */
export const KNOWN_FOR_MS = 5_000;

export class Recent<T> {
  readonly #known = new Map<string, { readonly answer: T | undefined; readonly until: number }>();

  /** What is known of `id`: as it was answered lately, or as `ask` answers. Ids come from routes alone: as many as origins. */
  async of(id: string, now: number, ask: () => Promise<T | undefined>): Promise<T | undefined> {
    const known = this.#known.get(id);
    if (known && known.until > now) return known.answer;
    const answer = await ask();
    // From when it was asked: what changed meanwhile is found out in time too.
    this.#known.set(id, { answer, until: now + KNOWN_FOR_MS });
    return answer;
  }
}
