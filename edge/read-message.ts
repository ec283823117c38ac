/**
 * Owns how a POST becomes one JSON-RPC message: its headers, its size, its encoding, its shape.
 *
 * Invariant: the body is read once and never grows beyond `MAX_MESSAGE_BYTES`.
 */
import { MoorageError } from '../shared/errors.ts';
import { type JsonRpcMessage, parseJson, parseMessage } from '../shared/jsonrpc.ts';
import { MAX_MESSAGE_BYTES } from '../shared/origin-api.ts';

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

/**
 * The message of a POST.
 * @throws MoorageError `not_acceptable`, `unsupported_media_type`, `body_too_large`, `parse_error`, `invalid_request`.
 */
export async function readMessage(request: Request): Promise<ReadMessage> {
  if (!accepts(request.headers.get('accept'), ['application/json', 'text/event-stream'])) {
    throw new MoorageError(
      'not_acceptable',
      'Accept must list both application/json and text/event-stream (MCP, Streamable HTTP, "Sending Messages").',
    );
  }
  const type = request.headers.get('content-type')?.split(';')[0]?.trim().toLowerCase();
  if (type !== 'application/json') {
    throw new MoorageError('unsupported_media_type', 'Send the message as Content-Type: application/json.');
  }
  const bytes = await readBounded(request, MAX_MESSAGE_BYTES);
  const value = parseJson(decode(bytes));
  if (Array.isArray(value)) {
    throw new MoorageError('invalid_request', 'Batches are not taken: POST one JSON-RPC message at a time.');
  }
  return { message: parseMessage(value), bytes };
}

function decode(bytes: Uint8Array): string {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: false }).decode(bytes);
  } catch {
    throw new MoorageError('parse_error', 'The body is not valid UTF-8.');
  }
}

/** A body, whole. @throws MoorageError `body_too_large` as soon as it is known to be larger than `max` bytes. */
export async function readBounded(message: Request | Response, max: number): Promise<Uint8Array<ArrayBuffer>> {
  const tooLarge = () =>
    new MoorageError('body_too_large', `The message is larger than ${max} bytes.`, { maxBytes: max });
  const declared = Number(message.headers.get('content-length') ?? Number.NaN);
  if (declared > max) throw tooLarge();
  if (declared <= max) return new Uint8Array(await message.arrayBuffer());
  const reader = message.body?.getReader();
  if (!reader) return new Uint8Array();
  const parts: Uint8Array[] = [];
  let size = 0;
  for (let part = await reader.read(); !part.done; part = await reader.read()) {
    const chunk = part.value as Uint8Array;
    size += chunk.byteLength;
    if (size > max) {
      await reader.cancel();
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
