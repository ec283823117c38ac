/**
 * Owns which messages are discovery: the questions that a stored copy may answer, and the notifications that say that a
 * copy may have become wrong. Pure.
 */
import type { JsonRpcMessage, JsonRpcRequest } from '../../shared/jsonrpc.ts';

/** What servers list, by the word of their `…/list_changed`. */
export type Kind = 'tools' | 'prompts' | 'resources';
export const KINDS: readonly Kind[] = ['tools', 'prompts', 'resources'];

export const LISTS_OF: Readonly<Record<Kind, readonly string[]>> = {
  tools: ['tools/list'],
  prompts: ['prompts/list'],
  resources: ['resources/list', 'resources/templates/list'],
};

/** One page of discovery. */
export interface Question {
  readonly method: string;
  /** Null for the first page, and where there are no pages. */
  readonly cursor: string | null;
}

export const INITIALIZE: Question = { method: 'initialize', cursor: null };
/** What the stateless era has in the place of `initialize`. */
const DISCOVER = 'server/discover';
const MAX_CURSOR_LENGTH = 4096;

/** The kind of list that a method reads, or null. */
export const kindOf = (method: string): Kind | null => KINDS.find((kind) => LISTS_OF[kind].includes(method)) ?? null;

/** Whether a request is discovery in either era, `initialize` apart. */
export const isDiscovery = (method: string): boolean => method === DISCOVER || kindOf(method) !== null;

/** What a request of discovery asks; null for any other request, and for one with parameters that we do not know. */
export function questionOf(request: JsonRpcRequest): Question | null {
  if (!isDiscovery(request.method)) return null;
  const { cursor, _meta, ...others } = request.params ?? {};
  if (Object.keys(others).length > 0) return null;
  if (cursor === undefined) return { method: request.method, cursor: null };
  return typeof cursor === 'string' && cursor.length <= MAX_CURSOR_LENGTH ? { method: request.method, cursor } : null;
}

/** The kind of list that a server's notification says has changed, or null. */
export function changedKindOf(message: JsonRpcMessage | Readonly<Record<string, unknown>>): Kind | null {
  if (!('method' in message)) return null;
  return KINDS.find((kind) => message.method === `notifications/${kind}/list_changed`) ?? null;
}

/** The `nextCursor` of a list's result; null on its last page. */
export function nextCursorOf(result: Record<string, unknown>): string | null {
  return typeof result.nextCursor === 'string' ? result.nextCursor : null;
}
