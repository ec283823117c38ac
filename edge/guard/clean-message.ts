/**
 * Owns which texts of a server's message are words for somebody to read: results, descriptions, errors, questions, log lines.
 *
 * Names, URIs, cursors, sealed state, ids, `_meta` and binary content are not: they are compared or handed back, so they pass as
 * they came. Of a schema only its words are, for its patterns and constants decide what is valid.
 */
import { type Cleaning, cleaned, isSuspect } from '../../shared/hidden-characters.ts';
import type { JsonRpcMessage } from '../../shared/jsonrpc.ts';
import type { Rewriting } from './rewrite.ts';

const KEPT: ReadonlySet<string> = new Set([
  '_meta',
  'blob',
  'cursor',
  'id',
  'jsonrpc',
  'method',
  'mimeType',
  'name',
  'nextCursor',
  'progressToken',
  'requestId',
  'requestState',
  'src',
  'taskId',
  'type',
  'uri',
  'uriTemplate',
]);
const SCHEMAS: ReadonlySet<string> = new Set(['inputSchema', 'outputSchema', 'requestedSchema']);
const WORDS_OF_SCHEMAS: ReadonlySet<string> = new Set(['description', 'title', '$comment']);

/** Cleans every message. */
export const cleaning = (how: Cleaning): Rewriting => ({
  concerns: isSuspect,
  rewrite: (message) => cleanMessage(message, how),
});

/** The message itself where nothing changes. */
export const cleanMessage = (message: JsonRpcMessage, how: Cleaning): JsonRpcMessage =>
  clean(message, how, 'message') as JsonRpcMessage;

/** Where a value stands: in a message, in structured content (all of it is output), in a schema. */
type Place = 'message' | 'content' | 'schema';

function clean(value: unknown, how: Cleaning, place: Place): unknown {
  if (typeof value === 'string') return place === 'schema' ? value : cleaned(value, how);
  if (value === null || typeof value !== 'object') return value;
  if (Array.isArray(value)) {
    const items = value.map((item) => clean(item, how, place));
    return items.some((item, n) => item !== value[n]) ? items : value;
  }
  const entries = Object.entries(value);
  const binary = place === 'message' && 'mimeType' in value;
  let changed = false;
  const made = entries.map(([key, inner]): [string, unknown] => {
    const next = cleanMember(key, inner, how, place, binary);
    changed ||= next !== inner;
    return [key, next];
  });
  // Not by assignment: a member may be called `__proto__`.
  return changed ? Object.fromEntries(made) : value;
}

function cleanMember(key: string, value: unknown, how: Cleaning, place: Place, binary: boolean): unknown {
  if (place === 'schema') {
    return typeof value === 'string' && WORDS_OF_SCHEMAS.has(key) ? cleaned(value, how) : clean(value, how, 'schema');
  }
  if (place === 'content') return clean(value, how, 'content');
  if (KEPT.has(key) || (binary && key === 'data')) return value;
  if (key === 'structuredContent') return clean(value, how, 'content');
  return clean(value, how, SCHEMAS.has(key) ? 'schema' : 'message');
}
