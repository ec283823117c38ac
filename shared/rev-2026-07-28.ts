/**
 * Owns what the revision without sessions puts on the wire: the envelope in `_meta`, which methods exist, which results
 * carry caching hints, and the HTTP status of its errors (2026-07-28, basic/index, basic/transports/streamable-http).
 *
 * Pure: no I/O, no clock. Unknown methods, members and capabilities are not judged here: they pass.
 */
import { z } from 'zod';
import { ERROR_CODES, MoorageError } from './errors.ts';
import { isProgressToken, type JsonRpcRequest } from './jsonrpc.ts';
import { MODERN_REVISION, REVISION_META_KEY } from './revision.ts';

/** `_meta` keys that the specification reserves for itself. */
export const META = {
  revision: REVISION_META_KEY,
  clientInfo: 'io.modelcontextprotocol/clientInfo',
  clientCapabilities: 'io.modelcontextprotocol/clientCapabilities',
  logLevel: 'io.modelcontextprotocol/logLevel',
  subscriptionId: 'io.modelcontextprotocol/subscriptionId',
  serverInfo: 'io.modelcontextprotocol/serverInfo',
} as const;

/** Revisions of the stateless era that are spoken here, newest first. */
export const MODERN_REVISIONS: readonly string[] = [MODERN_REVISION];

/** Severities of RFC 5424, least severe first. */
export const LOG_LEVELS = ['debug', 'info', 'notice', 'warning', 'error', 'critical', 'alert', 'emergency'] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];

/** What a request says about its sender. `meta` is the whole `_meta`, untouched. */
export interface Envelope {
  readonly revision: string;
  readonly capabilities: Readonly<Record<string, unknown>>;
  readonly logLevel: LogLevel | undefined;
  readonly clientInfo: Readonly<Record<string, unknown>> | undefined;
  readonly meta: Readonly<Record<string, unknown>>;
}

const envelopeSchema = z.looseObject({
  [META.revision]: z.string().min(1).max(64),
  [META.clientCapabilities]: z.record(z.string(), z.unknown()),
  [META.clientInfo]: z.looseObject({ name: z.string(), version: z.string() }).optional(),
  [META.logLevel]: z.enum(LOG_LEVELS).optional(),
  progressToken: z.custom(isProgressToken, 'a string or a number').optional(),
});

/** The `_meta` of a message's params, where it is an object. */
export function metaOf(params: unknown): Readonly<Record<string, unknown>> | undefined {
  const meta = isRecord(params) ? params._meta : undefined;
  return isRecord(meta) ? meta : undefined;
}

/** Whether a message claims the stateless era: its `_meta` names a revision. A claim is judged, never ignored. */
export function claimsModern(params: unknown): boolean {
  const meta = metaOf(params);
  return meta !== undefined && Object.hasOwn(meta, META.revision);
}

/**
 * The envelope of a request of the stateless era.
 * @throws MoorageError `envelope_invalid` (naming the key), `unsupported_protocol_version` (with `supported` and `requested`).
 */
export function parseEnvelope(params: unknown): Envelope {
  const parsed = envelopeSchema.safeParse(metaOf(params) ?? {});
  if (!parsed.success) {
    const issue = parsed.error.issues[0];
    const key = issue?.path.join('.') ?? '_meta';
    throw new MoorageError('envelope_invalid', `"_meta" must carry a valid "${key}" (2026-07-28): ${issue?.message}.`, {
      key,
    });
  }
  const meta = parsed.data;
  const revision = meta[META.revision];
  if (!MODERN_REVISIONS.includes(revision)) throw unsupportedRevision(revision);
  return {
    revision,
    capabilities: meta[META.clientCapabilities],
    clientInfo: meta[META.clientInfo],
    logLevel: meta[META.logLevel],
    meta,
  };
}

/** Every client request of the revision. */
export const MODERN_METHODS: ReadonlySet<string> = new Set([
  'server/discover',
  'tools/list',
  'tools/call',
  'prompts/list',
  'prompts/get',
  'resources/list',
  'resources/templates/list',
  'resources/read',
  'completion/complete',
  'subscriptions/listen',
]);

/** Requests of earlier revisions that this one took away: whoever serves it answers "method not found". */
export const REMOVED_METHODS: ReadonlySet<string> = new Set([
  'initialize',
  'ping',
  'logging/setLevel',
  'resources/subscribe',
  'resources/unsubscribe',
  'tasks/list',
  'tasks/result',
]);

/** Notifications of clients of earlier revisions that this one took away, or says by closing a stream. */
export const REMOVED_NOTIFICATIONS: ReadonlySet<string> = new Set([
  'notifications/cancelled',
  'notifications/initialized',
  'notifications/progress',
  'notifications/roots/list_changed',
  'notifications/tasks/status',
]);

/** Requests whose complete results must carry `ttlMs` and `cacheScope` (server/utilities/caching). */
export const CACHEABLE_METHODS: ReadonlySet<string> = new Set([
  'server/discover',
  'tools/list',
  'prompts/list',
  'resources/list',
  'resources/templates/list',
  'resources/read',
]);

/** Requests that may be answered `input_required` (basic/patterns/mrtr, "Supported Requests"). */
export const INPUT_METHODS: ReadonlySet<string> = new Set(['tools/call', 'prompts/get', 'resources/read']);

export const methodNotFound = (method: string): MoorageError =>
  new MoorageError('method_not_found', `The revision ${MODERN_REVISION} has no method "${method}".`);

export const unsupportedRevision = (requested: string): MoorageError =>
  new MoorageError('unsupported_protocol_version', `The revision "${requested}" is not spoken here.`, {
    supported: MODERN_REVISIONS,
    requested,
  });

export const capabilityRequired = (requiredCapabilities: Readonly<Record<string, unknown>>): MoorageError =>
  new MoorageError(
    'capability_required',
    `The client did not declare what this request needs: ${Object.keys(requiredCapabilities).join(', ')}.`,
    { requiredCapabilities },
  );

const HTTP_STATUS: ReadonlyMap<number, number> = new Map([
  [-32700, 400],
  [-32600, 400],
  [ERROR_CODES.method_not_found.jsonrpc, 404],
  [ERROR_CODES.header_mismatch.jsonrpc, 400],
  [ERROR_CODES.capability_required.jsonrpc, 400],
  [ERROR_CODES.unsupported_protocol_version.jsonrpc, 400],
]);

/**
 * The HTTP status of a JSON-RPC error that is the whole answer to a request. An error on a stream that has begun, and
 * every code not listed (a tool's own failure, -32602 of a handler), is in band: 200.
 */
export function modernStatus(code: number): number {
  return HTTP_STATUS.get(code) ?? 200;
}

/** Whether a request is a retry with collected input. */
export const isRetry = ({ params }: JsonRpcRequest): boolean =>
  params !== undefined && (params.inputResponses !== undefined || params.requestState !== undefined);

export const isRecord = (value: unknown): value is Record<string, unknown> =>
  value !== null && typeof value === 'object' && !Array.isArray(value);
