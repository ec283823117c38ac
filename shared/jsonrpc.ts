/**
 * Owns JSON-RPC 2.0 messages as MCP uses them: their types, how bytes become one, and how answers are built.
 *
 * Invariants: after `parseMessage` a message's kind is certain and it can be written again (its nesting is bounded);
 * unknown members pass through untouched.
 */
import { z } from 'zod';
import { MoorageError, toJsonRpcError } from './errors.ts';
import { type ExactNumber, isExactNumber } from './exact-json.ts';

/** A request's id. MCP forbids null; fractional numbers are refused. */
export type RequestId = string | number;

export interface JsonRpcRequest {
  readonly jsonrpc: '2.0';
  readonly id: RequestId;
  readonly method: string;
  readonly params?: Record<string, unknown>;
}
export interface JsonRpcNotification {
  readonly jsonrpc: '2.0';
  readonly method: string;
  readonly params?: Record<string, unknown>;
}
export interface JsonRpcResult {
  readonly jsonrpc: '2.0';
  readonly id: RequestId;
  readonly result: Record<string, unknown>;
}
export interface JsonRpcFailure {
  readonly jsonrpc: '2.0';
  /** Null when the request could not be read (JSON-RPC 2.0, section 5). */
  readonly id: RequestId | null;
  readonly error: { readonly code: number; readonly message: string; readonly data?: unknown };
}
export type JsonRpcResponse = JsonRpcResult | JsonRpcFailure;
export type JsonRpcMessage = JsonRpcRequest | JsonRpcNotification | JsonRpcResponse;

export type MessageKind = 'request' | 'notification' | 'response';

/** Arrays and objects inside one another, at most: JSON.stringify recurses, and must not run out of stack. */
export const MAX_DEPTH = 512;

const id = z.union([z.string().max(1024), z.number().int()]);
const params = z.record(z.string(), z.unknown()).optional();
const method = z.string().min(1).max(256);
const requestSchema = z.looseObject({ jsonrpc: z.literal('2.0'), id, method, params });
const notificationSchema = z.looseObject({ jsonrpc: z.literal('2.0'), method, params });
const resultSchema = z.looseObject({ jsonrpc: z.literal('2.0'), id, result: z.record(z.string(), z.unknown()) });
const failureSchema = z.looseObject({
  jsonrpc: z.literal('2.0'),
  // Absent where the sender could not read the request (typescript-sdk issue: some servers leave it out, some send null).
  id: id.nullish().transform((value) => value ?? null),
  error: z.looseObject({ code: z.number(), message: z.string() }),
});

/** What a message is, judged by its members alone. */
export function kindOf(message: JsonRpcMessage): MessageKind {
  if ('method' in message) return 'id' in message && message.id !== undefined ? 'request' : 'notification';
  return 'response';
}

export const isRequest = (m: JsonRpcMessage): m is JsonRpcRequest => kindOf(m) === 'request';
export const isNotification = (m: JsonRpcMessage): m is JsonRpcNotification => kindOf(m) === 'notification';
export const isResponse = (m: JsonRpcMessage): m is JsonRpcResponse => kindOf(m) === 'response';

/**
 * One message from a parsed JSON value.
 * @throws MoorageError `invalid_request`, whose `data.id` is the request's id where one could be read.
 */
export function parseMessage(value: unknown): JsonRpcMessage {
  const shape = value !== null && typeof value === 'object' ? value : {};
  const schema =
    'method' in shape
      ? 'id' in shape && shape.id !== undefined
        ? requestSchema
        : notificationSchema
      : 'error' in shape
        ? failureSchema
        : resultSchema;
  if (isDeeperThan(value, MAX_DEPTH)) {
    throw new MoorageError('invalid_request', `A message is nested ${MAX_DEPTH} levels deep at most.`);
  }
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data as JsonRpcMessage;
  const issue = parsed.error.issues[0];
  const where = issue && issue.path.length > 0 ? ` at "${issue.path.join('.')}"` : '';
  const read = 'id' in shape ? id.safeParse(shape.id) : undefined;
  throw new MoorageError(
    'invalid_request',
    `This is not a JSON-RPC 2.0 message${where}: ${issue?.message ?? 'unexpected shape'}.`,
    read?.success ? { id: read.data } : {},
  );
}

/** Whether arrays and objects of a JSON value lie more than `levels` inside one another. Does not recurse itself. */
export function isDeeperThan(value: unknown, levels: number): boolean {
  let layer = [value];
  for (let depth = 0; layer.length > 0; depth++) {
    if (depth > levels) return true;
    const next: unknown[] = [];
    for (const each of layer) {
      if (each === null || typeof each !== 'object') continue;
      for (const inner of Object.values(each)) if (inner !== null && typeof inner === 'object') next.push(inner);
    }
    layer = next;
  }
  return false;
}

/**
 * JSON text to a value. `read` is `parseExactly` (`exact-json.ts`) for what passes through.
 * @throws MoorageError `parse_error`. The text itself is never echoed.
 */
export function parseJson(text: string, read: (text: string) => unknown = JSON.parse): unknown {
  try {
    return read(text);
  } catch {
    throw new MoorageError('parse_error', 'The body is not valid JSON. Send one JSON-RPC 2.0 message as UTF-8 JSON.');
  }
}

/**
 * The id of what was meant as an answer and is no message (nested too deep, an error without a code): whoever waits for it
 * waits in vain. A line of a program's own log is not mistaken for one.
 */
export function idOfBadAnswer(value: unknown): RequestId | undefined {
  if (value === null || typeof value !== 'object' || 'method' in value) return undefined;
  if (!('jsonrpc' in value) || value.jsonrpc !== '2.0' || !('id' in value)) return undefined;
  const read = id.safeParse(value.id);
  return read.success ? read.data : undefined;
}

/** The answer to request `id` for an expected failure. */
export function failure(requestId: RequestId | null, error: MoorageError): JsonRpcFailure {
  return { jsonrpc: '2.0', id: requestId, error: toJsonRpcError(error) };
}

/**
 * A member that should name something, as a text to look it up by; empty, which names nothing, where it is no text and no
 * number. String() and Number() throw for an object that says `{"toString":1}`, and for a number that is kept as its text.
 */
export const nameFrom = (value: unknown): string =>
  typeof value === 'string' || typeof value === 'number' ? String(value) : '';

/** As `nameFrom`, for what is looked up by a number; NaN where it is none. */
export const numberFrom = (value: unknown): number => (nameFrom(value) === '' ? Number.NaN : Number(value));

/** What a client chose to know its progress by: to whoever passes it on it says nothing, so it may be any number. */
export type ProgressToken = RequestId | ExactNumber;
export const isProgressToken = (value: unknown): value is ProgressToken =>
  typeof value === 'string' || typeof value === 'number' || isExactNumber(value);

/** `_meta.progressToken` of a request, where there is one (MCP, basic/utilities/progress). */
export function progressTokenOf(message: JsonRpcRequest): ProgressToken | undefined {
  const meta = message.params?._meta;
  if (meta === null || typeof meta !== 'object') return undefined;
  const token = (meta as { progressToken?: unknown }).progressToken;
  return isProgressToken(token) ? token : undefined;
}
