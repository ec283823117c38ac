/**
 * Owns how a POST becomes a JSON value: its headers, its size, its encoding, its depth.
 *
 * Invariant: the body is read once and never grows beyond `MAX_MESSAGE_BYTES`.
 */
import { MoorageError } from '../shared/errors.ts';
import { type JsonRpcMessage, parseJson } from '../shared/jsonrpc.ts';
import { MAX_MESSAGE_BYTES } from '../shared/origin-api.ts';

/** Levels of arrays and objects in one message. */
export const MAX_DEPTH = 512;
const QUOTE = 0x22;
const BACKSLASH = 0x5c;

export interface ReadMessage {
  readonly message: JsonRpcMessage;
  /** The body as it came, for the origin. */
  readonly bytes: Uint8Array<ArrayBuffer>;
}

/**
 * Whether `Accept` admits all of `types`. A missing header admits everything (RFC 9110, section 12.5.1).
 */
export function accepts(header: string | null, types: readonly string[]): boolean {
  if (header === null) return true;
  const ranges = header.split(',').map((range) => range.split(';')[0]?.trim().toLowerCase() ?? '');
  return types.every((type) =>
    ranges.some((range) => range === type || range === '*/*' || range === `${type.split('/')[0]}/*`),
  );
}

/** How a JSON text is read; `JSON.parse` where nothing else is asked for. */
type ReadJson = (text: string) => unknown;

/** A POST's body: its bytes, what they spell, and the JSON value in them. */
export interface ReadBody {
  readonly value: unknown;
  readonly text: string;
  readonly bytes: Uint8Array<ArrayBuffer>;
}

/**
 * Whether `Accept` puts event streams before JSON: by a higher quality, else by being named first, as libraries for
 * content negotiation read it. Clients of SDKs name JSON first.
 */
export function prefersStream(header: string | null): boolean {
  if (header === null) return false;
  const ranges = header.split(',').map((range) => {
    const [type = '', ...parameters] = range.split(';').map((part) => part.trim().toLowerCase());
    const quality = Number(parameters.find((parameter) => parameter.startsWith('q='))?.slice(2) ?? '1');
    return { type, quality };
  });
  const [stream, json] = ['text/event-stream', 'application/json'].map((name) => {
    const index = ranges.findIndex(({ type }) => type === name);
    return { index, quality: ranges[index]?.quality ?? 0 };
  });
  if (!stream || !json || stream.index === -1 || json.index === -1) return false;
  return stream.quality === json.quality ? stream.index < json.index : stream.quality > json.quality;
}

/**
 * The body of a POST of the Streamable HTTP transport.
 * @throws MoorageError `not_acceptable`, and those of `readBody`.
 */
export async function readPost(request: Request, read?: ReadJson): Promise<ReadBody> {
  if (!accepts(request.headers.get('accept'), ['application/json', 'text/event-stream'])) {
    throw new MoorageError(
      'not_acceptable',
      'Accept must list both application/json and text/event-stream (MCP, Streamable HTTP, "Sending Messages").',
    );
  }
  return await readBody(request, read);
}

/**
 * A JSON body, whole.
 * @throws MoorageError `unsupported_media_type`, `body_too_large`, `parse_error`, `invalid_request` (nested too deep).
 */
export async function readBody(request: Request, read?: ReadJson): Promise<ReadBody> {
  const type = request.headers.get('content-type')?.split(';')[0]?.trim().toLowerCase();
  if (type !== 'application/json') {
    throw new MoorageError('unsupported_media_type', 'Send the message as Content-Type: application/json.');
  }
  const bytes = await readBounded(request, MAX_MESSAGE_BYTES);
  const text = decode(bytes);
  if (isDeeperThan(bytes, MAX_DEPTH)) {
    throw new MoorageError('invalid_request', `The message is nested more than ${MAX_DEPTH} levels deep.`);
  }
  return { value: parseJson(text, read), text, bytes };
}

/**
 * Whether brackets outside of strings nest deeper than `max`. A value that deep would exhaust the stack of whoever walks
 * it, here or in the server behind.
 */
export function isDeeperThan(json: Uint8Array, max: number): boolean {
  let depth = 0;
  let inString = false;
  for (let at = 0; at < json.length; at++) {
    const byte = json[at];
    if (inString) {
      if (byte === BACKSLASH) at++;
      else if (byte === QUOTE) inString = false;
    } else if (byte === QUOTE) inString = true;
    else if (byte === 0x7b || byte === 0x5b) {
      if (++depth > max) return true;
    } else if (byte === 0x7d || byte === 0x5d) depth--;
  }
  return false;
}

function decode(bytes: Uint8Array): string {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: false }).decode(bytes);
  } catch {
    throw new MoorageError('parse_error', 'The body is not valid UTF-8.');
  }
}

/** What is read of a body that is refused, at most, in bytes. */
const MAX_DISCARDED = 64 * 1024 * 1024;
/** How long the next bytes of it are waited for, in milliseconds. */
const DISCARD_WAIT_MS = 1000;

/**
 * Reads on without keeping anything: a client that is still sending when its connection is closed sees a broken
 * connection, and never the refusal (RFC 9112, section 9.6, on closing too early).
 */
async function discard(reader: ReadableStreamDefaultReader<Uint8Array>): Promise<void> {
  try {
    for (let size = 0; size <= MAX_DISCARDED; ) {
      const { promise: silence, resolve } = Promise.withResolvers<{ done: true; value?: undefined }>();
      const timer = setTimeout(() => resolve({ done: true }), DISCARD_WAIT_MS);
      const part = await Promise.race([reader.read(), silence]);
      clearTimeout(timer);
      if (part.done) break;
      size += part.value.byteLength;
    }
    await reader.cancel();
  } catch {
    // The client left while it was sending: nobody is there to read the refusal that follows.
  }
}

/** A body, whole. @throws MoorageError `body_too_large` as soon as it is known to be larger than `max` bytes. */
export async function readBounded(message: Request | Response, max: number): Promise<Uint8Array<ArrayBuffer>> {
  const tooLarge = () =>
    new MoorageError('body_too_large', `The message is larger than ${max} bytes.`, { maxBytes: max });
  const declared = Number(message.headers.get('content-length') ?? Number.NaN);
  if (declared <= max) return new Uint8Array(await message.arrayBuffer());
  const reader = message.body?.getReader();
  if (!reader) return new Uint8Array();
  if (declared > max) {
    await discard(reader);
    throw tooLarge();
  }
  const parts: Uint8Array[] = [];
  let size = 0;
  for (let part = await reader.read(); !part.done; part = await reader.read()) {
    const chunk = part.value as Uint8Array;
    size += chunk.byteLength;
    if (size > max) {
      await discard(reader);
      throw tooLarge();
    }
    parts.push(chunk);
  }
  const whole = new Uint8Array(size);
  let offset = 0;
  for (const part of parts) {
    whole.set(part, offset);
    offset += part.byteLength;
  }
  return whole;
}
