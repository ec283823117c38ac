/**
 * The last bytes of a machine's serial console and of QEMU's own complaints. A hostile guest may print for ever: only a
 * fixed amount is kept, in memory, and what leaves here holds no terminal control sequences.
 */

/** Keeps the newest `capacity` bytes of a stream. */
export class RingBuffer {
  readonly #bytes: Buffer;
  #next = 0;
  #full = false;

  constructor(capacity: number) {
    this.#bytes = Buffer.alloc(capacity);
  }

  push(chunk: Uint8Array): void {
    const capacity = this.#bytes.length;
    const kept = chunk.length > capacity ? chunk.subarray(chunk.length - capacity) : chunk;
    const first = Math.min(kept.length, capacity - this.#next);
    this.#bytes.set(kept.subarray(0, first), this.#next);
    this.#bytes.set(kept.subarray(first), 0);
    if (this.#next + kept.length >= capacity) this.#full = true;
    this.#next = (this.#next + kept.length) % capacity;
  }

  /** The newest bytes, at most `limit`, as printable text. */
  tail(limit: number): string {
    const ordered = this.#full
      ? Buffer.concat([this.#bytes.subarray(this.#next), this.#bytes.subarray(0, this.#next)])
      : this.#bytes.subarray(0, this.#next);
    return printable(ordered.subarray(Math.max(0, ordered.length - limit)).toString('utf8'));
  }
}

/** Text without escape sequences and control characters other than newline and tab. */
export function printable(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: removing control characters is the purpose
  return text.replace(/\x1b\[[0-9;?]*[A-Za-z]/g, '').replace(/[\x00-\x08\x0b-\x1f\x7f-\x9f]/g, '');
}
