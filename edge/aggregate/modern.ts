/**
 * Owns `/mcp` for clients of the stateless era (2026-07-28): each request goes to the endpoints of the servers that it
 * concerns, with the client's own envelope, and nothing is kept between requests.
 *
 * Its listen stream is `listen.ts`.
 */
import type { JsonRpcMessage, JsonRpcRequest } from '../../shared/jsonrpc.ts';
import {
  encodeHeaderValue,
  METHOD_HEADER,
  NAME_HEADER,
  nameOf,
  PARAM_HEADER_PREFIX,
  REVISION_HEADER,
} from '../../shared/mirrored-headers.ts';
import { isRecord, MODERN_REVISIONS, methodNotFound } from '../../shared/rev-2026-07-28.ts';
import { MODERN_REVISION } from '../../shared/revision.ts';
import { hinted } from '../discovery/hints.ts';
import { aggregateSettingsOf } from '../env.ts';
import { checkModern } from '../modern/classify.ts';
import { heldOpen } from '../modern/hold.ts';
import { LISTEN } from '../modern/subscription.ts';
import { answerFrom, resultResponse } from './answer.ts';
import { CAPABILITIES, findServer, INSTRUCTIONS, SERVER_INFO, serversOf } from './find.ts';
import { listenToAll } from './listen.ts';
import { isListMethod, listAll, UNAVAILABLE } from './lists.ts';
import { answerOf, resultOf } from './members.ts';
import { UriNames } from './names.ts';
import { fromServer, toServer } from './rewrite.ts';
import type { AggregateExchange } from './serve.ts';

/** How long clients may keep what `/mcp` says of itself, in milliseconds. */
const DISCOVER_TTL_MS = 60_000;
/** A silent stream shows that its client is gone within about twice this, in milliseconds. */
const BEAT_MS = 2000;

/** Answers one message of the stateless era. @throws MoorageError. */
export async function serveAggregateModern(exchange: AggregateExchange, message: JsonRpcMessage): Promise<Response> {
  const { env, request: http } = exchange;
  const checked = checkModern(message, (name) => http.headers.get(name));
  if (!checked) return new Response(null, { status: 202 });
  const { request } = checked;
  if (request.method === 'server/discover') {
    return resultResponse(request, {
      resultType: 'complete',
      supportedVersions: [...MODERN_REVISIONS],
      capabilities: CAPABILITIES,
      serverInfo: SERVER_INFO,
      instructions: INSTRUCTIONS,
      ttlMs: DISCOVER_TTL_MS,
      cacheScope: 'private',
    });
  }
  const servers = await serversOf(exchange);
  const uris = await UriNames.of(servers);
  const { tools } = aggregateSettingsOf(env);
  const leaving = new AbortController();
  http.signal.addEventListener('abort', () => leaving.abort());
  const send = (server: string, inner: JsonRpcRequest, signal = leaving.signal) =>
    exchange.inner(server, memberRequest(inner, http.headers, signal));
  const page = (method: string) => async (server: string, cursor: string | undefined) => {
    const { cursor: _ours, ...params } = request.params ?? {};
    const listing: JsonRpcRequest = {
      jsonrpc: '2.0',
      id: 'moorage-list',
      method,
      params: { _meta: params._meta, ...(cursor === undefined ? {} : { cursor }) },
    };
    return resultOf(await answerOf(await send(server, listing), listing));
  };
  const hold = (answer: Promise<Response>) => heldOpen(answer, { id: request.id, beatMs: BEAT_MS, leaving });
  const { method } = request;
  if (method === LISTEN) {
    return await listenToAll({ viewer: exchange, request, servers, uris, send, leaving });
  }
  if (isListMethod(method)) {
    const cursor = typeof request.params?.cursor === 'string' ? request.params.cursor : undefined;
    const listing = listAll({ method, servers, cursor, page: page(method), uris, tools });
    return await hold(listing.then((result) => resultResponse(request, { ...completed(result) })));
  }
  if (!['tools/call', 'prompts/get', 'resources/read', 'completion/complete'].includes(method))
    throw methodNotFound(method);
  const { server, known } = await findServer(request, { servers, uris, tools, page });
  const work = send(server, toServer(request, known));
  return await hold(answerFrom(request, work, (passed) => fromServer(server, passed, uris, method)));
}

/** A list that lacks a server is not worth keeping. */
function completed(result: Readonly<Record<string, unknown>>): Readonly<Record<string, unknown>> {
  const isPart = isRecord(result._meta) && result._meta[UNAVAILABLE] !== undefined;
  return hinted({ resultType: 'complete', ...result, ...(isPart ? { ttlMs: 0 } : {}) });
}

/** A request to a server's endpoint with the headers that mirror its body (2026-07-28, "Standard MCP Request Headers"). */
function memberRequest(request: JsonRpcRequest, client: Headers, signal: AbortSignal): Request {
  const headers = new Headers({
    accept: 'application/json, text/event-stream',
    'content-type': 'application/json',
    [REVISION_HEADER]: MODERN_REVISION,
    [METHOD_HEADER]: request.method,
  });
  const name = nameOf(request);
  if (name !== undefined) headers.set(NAME_HEADER, encodeHeaderValue(name));
  for (const [key, value] of client) if (key.startsWith(PARAM_HEADER_PREFIX)) headers.set(key, value);
  return new Request('http://localhost/', { method: 'POST', headers, body: JSON.stringify(request), signal });
}
