/**
 * The wire between host and guest: one byte pipe (virtio-serial) that carries many processes' streams. Pure: no I/O.
 * Both ends run this file, so it imports nothing but Node's Buffer.
 *
 * Frame: u8 type, u32 stream, u32 length (little endian), then `length` bytes of payload. Stream 0 carries control.
 *
 * | type    | way  | payload                                   | meaning                                       |
 * |---------|------|-------------------------------------------|-----------------------------------------------|
 * | hello   | g->h | u8 version                                | the agent is up; always its first frame       |
 * | control | both | JSON `{id, op, ...}` / `{id, error?, ...}` | request of the host / reply of the guest     |
 * | open    | h->g | JSON ProcessSpec                          | start a process as this stream                |
 * | opened  | g->h | empty                                     | it runs                                       |
 * | failed  | g->h | JSON `{message}`                          | it does not; the stream is over               |
 * | stdin   | h->g | bytes                                     | spends host credit                            |
 * | stdout, stderr | g->h | bytes                              | spends guest credit                           |
 * | end     | both | u8 channel                                | no more bytes on that channel                 |
 * | credit  | both | u8 channel, u32 bytes                     | the receiver consumed that many bytes         |
 * | signal  | h->g | u8 number                                 | signal the process group; see `terminal.ts`   |
 * | resize  | h->g | u16 columns, u16 rows                     | the window of its terminal has another size   |
 * | exit    | g->h | JSON `{code, signal}`                     | the process ended; output may still follow    |
 * | connect | g->h | JSON `{host, port}`                       | a program wants this connection, as this stream |
 * | reset   | both | empty                                     | the connection is over at once                |
 * | note    | g->h | JSON, see `egress.ts`                     | why a program got no connection, for the log  |
 *
 * A connection is a stream that the guest opens: its number is OUTGOING or more, each larger than the one before. The host
 * answers `opened` or `failed`; then `stdout` is what the program sends, `stdin` what it gets, each with `end` and credit.
 * It is over when both have ended, or with `reset`.
 *
 * Operations of `control`: `ping`; `sync`; `time {ms}`; `shutdown {graceMs}`; `egress {allow}`: what programs may reach, for
 * the guest to know which names to answer (the host decides again, for every connection);
 * `freeze {force, still?}`: the guest holds its processes still where it is asked to, writes its disks and replies either
 * `{heldMs}` (somebody inside asks to stay awake, nothing changed) or `{frozen: true}` as its last frame. Neither end then sends until
 * `thaw {ms, seed?, fresh, copy?}`: sets the clock, credits `seed` (base64) to the random numbers. `fresh` says that the host's end
 * is a new one which knows the streams but not their credit: all windows are full again. It knows no connections: these are
 * reset without a word. `copy {hostname, machineId, keep}` says that the machine is a copy of another one: it takes the name,
 * and of its processes only the streams in `keep` go on.
 *
 * Invariants: a frame longer than MAX_PAYLOAD, of an unknown type, or beyond its sender's credit is a FrameError, after
 * which the pipe must be dropped. A decoder holds at most one frame. A sender never has more than WINDOW bytes of one
 * channel unconsumed, so memory is bounded by processes x channels x WINDOW on either side.
 */

export const PROTOCOL_VERSION = 3;
/** Largest payload of any frame, in bytes (an `open` with a big environment is the largest legitimate one). */
export const MAX_PAYLOAD = 128 * 1024;
/** Largest chunk of process data in one frame: short enough that one stream cannot hold up the others for long. */
export const MAX_CHUNK = 32 * 1024;
/** Bytes that a sender may have unconsumed per channel. */
export const WINDOW = 256 * 1024;
/** Processes that may exist at once. */
export const MAX_STREAMS = 128;
/** Connections that may be open at once. */
export const MAX_CONNECTIONS = 128;
/** Numbers of streams from here on are connections. */
export const OUTGOING = 0x8000_0000;
export const HEADER = 9;

export const FRAME = {
  hello: 1,
  control: 2,
  open: 3,
  opened: 4,
  failed: 5,
  stdin: 6,
  stdout: 7,
  stderr: 8,
  end: 9,
  credit: 10,
  signal: 11,
  exit: 12,
  resize: 13,
  connect: 14,
  reset: 15,
  note: 16,
} as const;
export type FrameType = (typeof FRAME)[keyof typeof FRAME];
const LAST_TYPE = FRAME.note;

/** A data channel of a process, as its number in `end` and `credit` frames (the same as its file descriptor). */
export const CHANNEL = { stdin: 0, stdout: 1, stderr: 2 } as const;
export type Channel = (typeof CHANNEL)[keyof typeof CHANNEL];

export interface Frame {
  type: FrameType;
  stream: number;
  payload: Buffer;
}

/** The peer broke the protocol. The pipe is unusable from here on. */
export class FrameError extends Error {
  override readonly name = 'FrameError';
}

const EMPTY = Buffer.alloc(0);

/** One encoded frame. Throws FrameError when the payload exceeds MAX_PAYLOAD: the caller must split or refuse. */
export function encodeFrame(type: FrameType, stream: number, payload: Uint8Array = EMPTY): Buffer {
  if (payload.length > MAX_PAYLOAD) {
    throw new FrameError(`a frame of ${payload.length} bytes exceeds the limit of ${MAX_PAYLOAD}`);
  }
  const frame = Buffer.allocUnsafe(HEADER + payload.length);
  frame[0] = type;
  frame.writeUInt32LE(stream, 1);
  frame.writeUInt32LE(payload.length, 5);
  frame.set(payload, HEADER);
  return frame;
}

export function encodeJson(type: FrameType, stream: number, value: unknown): Buffer {
  return encodeFrame(type, stream, Buffer.from(JSON.stringify(value)));
}

export function encodeEnd(stream: number, channel: Channel): Buffer {
  return encodeFrame(FRAME.end, stream, Buffer.from([channel]));
}

export function encodeCredit(stream: number, channel: Channel, bytes: number): Buffer {
  const payload = Buffer.allocUnsafe(5);
  payload[0] = channel;
  payload.writeUInt32LE(bytes, 1);
  return encodeFrame(FRAME.credit, stream, payload);
}

/** Reads the JSON object of a frame. Throws FrameError on anything else. */
export function decodeJson(frame: Frame): Record<string, unknown> {
  let value: unknown;
  try {
    value = JSON.parse(frame.payload.toString('utf8'));
  } catch (cause) {
    throw new FrameError(`frame type ${frame.type} carries malformed JSON: ${String(cause)}`);
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw new FrameError(`frame type ${frame.type} must carry a JSON object`);
  }
  return value as Record<string, unknown>;
}

/**
 * As `decodeJson`, of a guest: the members are texts, numbers, booleans or null, which is all that a guest has to say. An
 * object is a trap for whoever would make a text of it: `{"toString":1}` cannot be one. Throws FrameError.
 */
export function decodePlain(frame: Frame): Record<string, unknown> {
  const value = decodeJson(frame);
  if (Object.values(value).some((member) => typeof member === 'object' && member !== null))
    throw new FrameError(`frame type ${frame.type} must carry plain values`);
  return value;
}

function channelOf(frame: Frame, length: number): Channel {
  const channel = frame.payload[0];
  if (frame.payload.length !== length || channel === undefined || channel > CHANNEL.stderr) {
    throw new FrameError(`frame type ${frame.type} has a malformed payload`);
  }
  return channel as Channel;
}

export function decodeEnd(frame: Frame): Channel {
  return channelOf(frame, 1);
}

export function decodeCredit(frame: Frame): { channel: Channel; bytes: number } {
  return { channel: channelOf(frame, 5), bytes: frame.payload.readUInt32LE(1) };
}

/** Size of a terminal's window, in characters. */
export interface TerminalSize {
  readonly columns: number;
  readonly rows: number;
}

export function encodeResize(stream: number, { columns, rows }: TerminalSize): Buffer {
  const payload = Buffer.allocUnsafe(4);
  payload.writeUInt16LE(columns, 0);
  payload.writeUInt16LE(rows, 2);
  return encodeFrame(FRAME.resize, stream, payload);
}

export function decodeResize(frame: Frame): TerminalSize {
  if (frame.payload.length !== 4) throw new FrameError(`frame type ${frame.type} has a malformed payload`);
  return { columns: frame.payload.readUInt16LE(0), rows: frame.payload.readUInt16LE(2) };
}

/** Turns chunks of any size into frames. Costs O(bytes) however the bytes are cut. */
export class FrameDecoder {
  readonly #header = Buffer.alloc(HEADER);
  #headerFill = 0;
  #payload: Buffer | undefined;
  #payloadFill = 0;

  /** Frames completed by this chunk, in order. Payloads may share memory with `chunk`. Throws FrameError. */
  *push(chunk: Buffer): Generator<Frame, void, void> {
    let at = 0;
    for (;;) {
      if (this.#headerFill < HEADER) {
        const taken = Math.min(HEADER - this.#headerFill, chunk.length - at);
        chunk.copy(this.#header, this.#headerFill, at, at + taken);
        this.#headerFill += taken;
        at += taken;
        if (this.#headerFill < HEADER) return;
      }
      const type = this.#header[0] ?? 0;
      const length = this.#header.readUInt32LE(5);
      if (type < FRAME.hello || type > LAST_TYPE) throw new FrameError(`unknown frame type ${type}`);
      if (length > MAX_PAYLOAD) throw new FrameError(`a frame of ${length} bytes exceeds the limit of ${MAX_PAYLOAD}`);
      let payload: Buffer;
      if (this.#payload === undefined && chunk.length - at >= length) {
        payload = chunk.subarray(at, at + length);
        at += length;
      } else {
        this.#payload ??= Buffer.allocUnsafe(length);
        const taken = Math.min(length - this.#payloadFill, chunk.length - at);
        chunk.copy(this.#payload, this.#payloadFill, at, at + taken);
        this.#payloadFill += taken;
        at += taken;
        if (this.#payloadFill < length) return;
        payload = this.#payload;
      }
      const stream = this.#header.readUInt32LE(1);
      this.#headerFill = 0;
      this.#payload = undefined;
      this.#payloadFill = 0;
      yield { type: type as FrameType, stream, payload };
    }
  }
}

/** The sending end of a channel's credit. */
export class SendWindow {
  #available = WINDOW;

  get available(): number {
    return this.#available;
  }

  /** Spends up to `wanted` bytes (also bounded by MAX_CHUNK) and returns how many may be sent now. */
  take(wanted: number): number {
    const taken = Math.min(wanted, this.#available, MAX_CHUNK);
    this.#available -= taken;
    return taken;
  }

  /** The peer consumed `bytes`. Throws FrameError when it returns more than it was sent. */
  grant(bytes: number): void {
    if (this.#available + bytes > WINDOW) throw new FrameError('the peer granted more credit than it was sent');
    this.#available += bytes;
  }
}

/** The receiving end of a channel's credit; batches what it gives back so that credits do not double the frames. */
export class ReceiveWindow {
  #outstanding = 0;
  #owed = 0;

  /** Counts arrived bytes. Throws FrameError when the peer sent beyond its credit. */
  receive(bytes: number): void {
    this.#outstanding += bytes;
    if (this.#outstanding > WINDOW) throw new FrameError('the peer sent more than its credit');
  }

  /** Counts consumed bytes; returns the credit to send now, or 0 to send it with a later one. */
  consume(bytes: number): number {
    this.#owed += bytes;
    if (this.#owed < WINDOW / 4) return 0;
    const credit = this.#owed;
    this.#outstanding -= credit;
    this.#owed = 0;
    return credit;
  }
}
