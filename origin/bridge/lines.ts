/**
 * Owns the framing of a stdio MCP server's output: one JSON-RPC message a line (MCP, basic/transports, "stdio").
 *
 * Invariant: memory is bounded by `maxBytes` whatever the server writes; a line that is too long is skipped to its end
 * and reported with its first and last bytes.
 */

export type Line =
  | { readonly type: 'line'; readonly text: string }
  /** A line over the bound. `head` and `tail` are its first and last 256 bytes. */
  | { readonly type: 'overlong'; readonly bytes: number; readonly head: string; readonly tail: string };

const KEPT = 256;

export class LineSplitter {
  readonly #max: number;
  #parts: Buffer[] = [];
  #size = 0;
  #skipping: { bytes: number; head: string; tail: Buffer } | undefined;

  /** @param maxBytes the longest line that is passed on, newline not counted. */
  constructor(maxBytes: number) {
    this.#max = maxBytes;
  }

  /** Lines completed by `chunk`, in order, without their newline (and without a carriage return before it). */
  push(chunk: Buffer): Line[] {
    const lines: Line[] = [];
    let start = 0;
    for (;;) {
      const end = chunk.indexOf(0x0a, start);
      this.#take(chunk.subarray(start, end === -1 ? undefined : end));
      if (end === -1) return lines;
      const line = this.#finish();
      if (line) lines.push(line);
      start = end + 1;
    }
  }

  /** The line that no newline followed, when nothing more comes. */
  end(): Line | undefined {
    return this.#finish();
  }

  #take(piece: Buffer): void {
    if (this.#skipping) {
      this.#skipping.bytes += piece.length;
      const tail = piece.length < KEPT ? Buffer.concat([this.#skipping.tail, piece]) : piece;
      // A copy: a view would keep the whole chunk alive.
      this.#skipping.tail = Buffer.from(tail.subarray(-KEPT));
      return;
    }
    this.#parts.push(piece);
    this.#size += piece.length;
    if (this.#size > this.#max) {
      const all = Buffer.concat(this.#parts);
      this.#skipping = {
        bytes: all.length,
        head: all.toString('utf8', 0, KEPT),
        tail: Buffer.from(all.subarray(-KEPT)),
      };
      this.#parts = [];
      this.#size = 0;
    }
  }

  #finish(): Line | undefined {
    if (this.#skipping) {
      const { bytes, head, tail } = this.#skipping;
      this.#skipping = undefined;
      return { type: 'overlong', bytes, head, tail: tail.toString('utf8') };
    }
    const text = Buffer.concat(this.#parts).toString('utf8').replace(/\r$/, '');
    this.#parts = [];
    this.#size = 0;
    return text.trim() === '' ? undefined : { type: 'line', text };
  }
}
