/**
 * Owns the headers that repeat what a request's body says, so that a router can choose without reading it (2026-07-28,
 * basic/transports/streamable-http, "Request Metadata"): how their values are written, and that both say the same.
 *
 * The attack that agreement stops: a header that passes a policy in front, over a body that does something else.
 */
import { MoorageError } from './errors.ts';
import type { JsonRpcRequest } from './jsonrpc.ts';
import { META, metaOf } from './rev-2026-07-28.ts';
import { MODERN_REVISION } from './revision.ts';

export const REVISION_HEADER = 'mcp-protocol-version';
export const METHOD_HEADER = 'mcp-method';
export const NAME_HEADER = 'mcp-name';
/** Arguments of a tool that its schema names in `x-mcp-header`; unknown ones pass untouched. */
export const PARAM_HEADER_PREFIX = 'mcp-param-';

const PREFIX = '=?base64?';
const SUFFIX = '?=';
const BASE64 = /^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/;
/** What a header carries as it is: visible ASCII, with spaces and tabs only inside. */
const PLAIN = /^(?:[\x21-\x7e](?:[\x20-\x7e\t]*[\x21-\x7e])?)?$/;

/** A value as a header carries it. */
export function encodeHeaderValue(value: string): string {
  const marked = value.startsWith(PREFIX) && value.endsWith(SUFFIX);
  if (PLAIN.test(value) && !marked) return value;
  const bytes = new TextEncoder().encode(value);
  let binary = '';
  for (const byte of bytes) binary += String.fromCharCode(byte);
  return `${PREFIX}${btoa(binary)}${SUFFIX}`;
}

/** The value that a header carries, or nothing when it is written wrongly (bad base64, bad UTF-8, other characters). */
export function decodeHeaderValue(header: string): string | undefined {
  const value = header.replace(/^[ \t]+|[ \t]+$/g, '');
  if (!(value.startsWith(PREFIX) && value.endsWith(SUFFIX) && value.length >= PREFIX.length + SUFFIX.length)) {
    return PLAIN.test(value) ? value : undefined;
  }
  const encoded = value.slice(PREFIX.length, -SUFFIX.length);
  if (!BASE64.test(encoded)) return undefined;
  try {
    const bytes = Uint8Array.from(atob(encoded), (character) => character.charCodeAt(0));
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    return undefined;
  }
}

/** Which member of `params` a request's `Mcp-Name` repeats. On tasks (an extension) it is checked where it is sent. */
const NAMED: ReadonlyMap<string, { readonly member: string; readonly required: boolean }> = new Map([
  ['tools/call', { member: 'name', required: true }],
  ['prompts/get', { member: 'name', required: true }],
  ['resources/read', { member: 'uri', required: true }],
  ['tasks/get', { member: 'taskId', required: false }],
  ['tasks/update', { member: 'taskId', required: false }],
  ['tasks/cancel', { member: 'taskId', required: false }],
]);

/** The value of `Mcp-Name` for a request, not yet encoded; nothing where there is none. */
export function nameOf({ method, params }: JsonRpcRequest): string | undefined {
  const named = NAMED.get(method);
  const value = named && params?.[named.member];
  return typeof value === 'string' ? value : undefined;
}

/** Reads one header by its name, in any case. `Headers.get` is one. */
export type HeaderReader = (name: string) => string | null | undefined;

/**
 * Why the headers of a request of the stateless era do not agree with its body, or nothing when they do.
 * @returns MoorageError `header_mismatch`.
 */
export function headerMismatch(request: JsonRpcRequest, header: HeaderReader): MoorageError | undefined {
  const expected: readonly [name: string, value: string | undefined, required: boolean, encoded: boolean][] = [
    [REVISION_HEADER, stringOf(metaOf(request.params)?.[META.revision]), true, false],
    [METHOD_HEADER, request.method, true, false],
    [NAME_HEADER, nameOf(request), NAMED.get(request.method)?.required ?? false, true],
  ];
  for (const [name, value, required, encoded] of expected) {
    if (value === undefined) continue;
    const sent = header(name);
    if (sent === null || sent === undefined) {
      if (required) return mismatch(name, 'it is missing');
      continue;
    }
    const said = encoded ? decodeHeaderValue(sent) : sent.trim();
    if (said === undefined) return mismatch(name, 'its value cannot be decoded');
    if (said !== value) return mismatch(name, 'it differs from the body');
  }
  return undefined;
}

/** Whether the revision header alone claims the stateless era: it names its first revision or a later one. */
export function headerClaimsModern(header: HeaderReader): boolean {
  const revision = header(REVISION_HEADER)?.trim() ?? '';
  return /^\d{4}-\d{2}-\d{2}$/.test(revision) && revision >= MODERN_REVISION;
}

/** The refusal of a request whose headers say something else than its body. */
export const mismatch = (header: string, why: string): MoorageError =>
  new MoorageError('header_mismatch', `The header "${header}" and the body must agree: ${why}.`, { header });

const stringOf = (value: unknown): string | undefined => (typeof value === 'string' ? value : undefined);
