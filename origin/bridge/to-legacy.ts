/**
 * Owns what a server of 2026-07-28 says, in the form of the revisions with sessions: the answer to `initialize`, results
 * without the decorations of the newer era, its questions as requests. Pure. Unknown members pass.
 */
import type { JsonRpcNotification, JsonRpcRequest } from '../../shared/jsonrpc.ts';
import { isRecord, META, metaOf } from '../../shared/rev-2026-07-28.ts';
import { isLegacyRevision, LEGACY_REVISIONS, MODERN_REVISION } from '../../shared/revision.ts';

type Json = Readonly<Record<string, unknown>>;

/** An InitializeResult from what `server/discover` gave. */
export function initializeResult(
  server: string,
  { params }: JsonRpcRequest,
  discovered: Json,
): Record<string, unknown> {
  const wanted = params?.protocolVersion;
  const {
    resultType: _type,
    ttlMs: _ttl,
    cacheScope: _scope,
    supportedVersions: _revisions,
    _meta,
    ...rest
  } = discovered;
  const { [META.serverInfo]: serverInfo, ...meta } = metaOf(discovered) ?? {};
  return {
    ...rest,
    protocolVersion: isLegacyRevision(wanted) ? wanted : LEGACY_REVISIONS[0],
    capabilities: isRecord(discovered.capabilities) ? discovered.capabilities : {},
    serverInfo: serverInfo ?? { name: server, version: '0' },
    ...(Object.keys(meta).length > 0 ? { _meta: meta } : {}),
  };
}

/** What a session adds to each of its requests. */
export function envelopeOf({ params }: JsonRpcRequest): Record<string, unknown> {
  return {
    [META.revision]: MODERN_REVISION,
    [META.clientCapabilities]: isRecord(params?.capabilities) ? params.capabilities : {},
    ...(isRecord(params?.clientInfo) ? { [META.clientInfo]: params.clientInfo } : {}),
  };
}

/** A request in the form of the era without sessions. What it carries for a retry is added by the caller. */
export function modernRequest(message: JsonRpcRequest, envelope: Json, more: Json = {}): JsonRpcRequest {
  const { params } = message;
  return { ...message, params: { ...params, ...more, _meta: { ...metaOf(params), ...envelope } } };
}

/** A complete result. Strict schemas of older clients refuse members that they do not know in empty results. */
export function legacyResult(method: string, result: Json): Record<string, unknown> {
  const { resultType: _type, ttlMs: _ttl, cacheScope: _scope, ...rest } = result;
  if (method === 'tools/call' && rest.structuredContent !== undefined && !isRecord(rest.structuredContent)) {
    return { ...rest, structuredContent: { result: rest.structuredContent } };
  }
  if (method === 'tools/list' && Array.isArray(rest.tools)) return { ...rest, tools: rest.tools.map(legacyTool) };
  return rest;
}

/** Before 2026-07-28 structured content is an object: any other is wrapped as `{ result }`, and its schema with it. */
function legacyTool(tool: unknown): unknown {
  if (!isRecord(tool) || !isRecord(tool.outputSchema) || tool.outputSchema.type === 'object') return tool;
  const { outputSchema, ...rest } = tool;
  // References would point elsewhere once it is wrapped; without a schema the content is simply not checked.
  if (JSON.stringify(outputSchema).includes('"$ref"')) return rest;
  return { ...rest, outputSchema: { type: 'object', properties: { result: outputSchema }, required: ['result'] } };
}

/** A notification of a subscription as one that was not asked for. */
export function legacyNotification(message: JsonRpcNotification): JsonRpcNotification {
  const { [META.subscriptionId]: _id, ...meta } = metaOf(message.params) ?? {};
  const { _meta, ...params } = message.params ?? {};
  const kept = Object.keys(meta).length > 0 ? { ...params, _meta: meta } : params;
  return { jsonrpc: '2.0', method: message.method, ...(Object.keys(kept).length > 0 ? { params: kept } : {}) };
}

/** One of `inputRequests` as a request. Addresses need an id before 2026-07-28, which nobody refers to. */
export function questionOf(id: string, ask: unknown): JsonRpcRequest | undefined {
  if (!isRecord(ask) || typeof ask.method !== 'string') return undefined;
  const params = isRecord(ask.params) ? ask.params : undefined;
  if (params?.mode === 'url') {
    return { jsonrpc: '2.0', id, method: ask.method, params: { ...params, elicitationId: params.elicitationId ?? id } };
  }
  return { jsonrpc: '2.0', id, method: ask.method, ...(params ? { params } : {}) };
}
