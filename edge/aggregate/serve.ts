import { MoorageError } from '../../shared/errors.ts';
import { isRequest, isResponse, type JsonRpcMessage, type JsonRpcRequest } from '../../shared/jsonrpc.ts';
import { LOG_LEVELS } from '../../shared/rev-2026-07-28.ts';
import { isLegacyRevision, LEGACY_REVISIONS } from '../../shared/revision.ts';
import {
  type Endpoint,
  readInitialize,
  SESSION_HEADER,
  serveEndpoint,
  sessionIdOf,
  VERSION_HEADER,
} from '../endpoint.ts';
import { aggregateSettingsOf, sessionKeyOf } from '../env.ts';
import { isPinned } from '../guard/settings.ts';
import { limited } from '../limits/limit.ts';
import type { Exchange } from '../mcp.ts';
import { isModern } from '../modern/classify.ts';
import { unwrap } from '../outcome.ts';
import { hearingAcceptance } from '../pins/acceptance.ts';
import { mintSessionId } from '../session/id.ts';
import { nothingFollows } from '../session/refusals.ts';
import { answerFrom, restFrom, resultResponse } from './answer.ts';
import { type MemberEvent, memberEventId, readMemberEventId } from './event-id.ts';
import { CAPABILITIES, findServer, INSTRUCTIONS, SERVER_INFO, serversOf, shownOf } from './find.ts';
import { isListMethod, listAll } from './lists.ts';
import { type Inner, Members, memberRequest } from './members.ts';
import { serveAggregateModern } from './modern.ts';
import { UriNames } from './names.ts';
import { type AggregateState, aggregateOf } from './object.ts';
import { fromServer, readQuestionId, toServer } from './rewrite.ts';
import { openAggregateStream } from './stream.ts';

/** Stands for all servers in the tag of a session id. No server can have this name. */
const ALL = '*';

export interface AggregateExchange extends Omit<Exchange, 'server'> {
  readonly inner: Inner;
}

/** Serves one request to `/mcp`; every failure is an answer. */
export async function serveAggregate(exchange: AggregateExchange): Promise<Response> {
  const { request, waitUntil } = exchange;
  const endpoint: Endpoint = {
    exact: true,
    message: ({ message, bytes }) => {
      const modern = isModern(message, (name) => request.headers.get(name));
      return limited(exchange, message, () =>
        modern ? serveAggregateModern(exchange, message) : post(exchange, message, bytes.byteLength),
      );
    },
    open: () => limited(exchange, null, () => open(exchange)),
    end: () => end(exchange),
    alone: (alone) => serveAggregate({ ...exchange, request: alone }),
  };
  return await serveEndpoint(request, endpoint, waitUntil);
}

async function post(exchange: AggregateExchange, message: JsonRpcMessage, bytes: number): Promise<Response> {
  if (isRequest(message) && message.method === 'initialize') return await initialize(exchange, message, bytes);
  const { session, state } = await admit(exchange);
  const members = new Members({
    env: exchange.env,
    session,
    state,
    inner: exchange.inner,
    version: exchange.request.headers.get(VERSION_HEADER),
  });
  if (isResponse(message)) {
    const asked = readQuestionId(message.id);
    if (asked && Object.hasOwn(state.members, asked.server)) {
      const response = await members.post(asked.server, { ...message, id: asked.id });
      await response.body?.cancel();
    }
    return new Response(null, { status: 202 });
  }
  if (!isRequest(message)) {
    // Members are told when they are opened that the client is initialized.
    if (message.method !== 'notifications/initialized') await members.tell(message);
    return new Response(null, { status: 202 });
  }
  return await request(exchange, session, members, message);
}

async function initialize(
  { env, principal }: AggregateExchange,
  request: JsonRpcRequest,
  bytes: number,
): Promise<Response> {
  const params = readInitialize(request, bytes);
  const { protocolVersion } = params;
  const spoken = isLegacyRevision(protocolVersion) ? protocolVersion : LEGACY_REVISIONS[0];
  const id = await mintSessionId(await sessionKeyOf(env), ALL, crypto.getRandomValues(new Uint8Array(16)));
  await aggregateOf(env, id).open(principal.subject, JSON.stringify({ ...params, protocolVersion: spoken }));
  const response = resultResponse(request, {
    protocolVersion: spoken,
    capabilities: CAPABILITIES,
    serverInfo: SERVER_INFO,
    instructions: INSTRUCTIONS,
  });
  response.headers.set(SESSION_HEADER, id);
  return response;
}

async function request(
  exchange: AggregateExchange,
  session: string,
  members: Members,
  message: JsonRpcRequest,
): Promise<Response> {
  const { env, waitUntil } = exchange;
  const { method } = message;
  if (method === 'ping') return resultResponse(message, {});
  if (method === 'logging/setLevel') {
    const level = LOG_LEVELS.find((known) => known === message.params?.level);
    if (!level) throw new MoorageError('invalid_params', `"level" is one of ${LOG_LEVELS.join(', ')}.`);
    await aggregateOf(env, session).setLogLevel(level);
    await members.tell({ ...message, id: 'moorage-level' });
    return resultResponse(message, {});
  }
  const servers = await serversOf(exchange);
  const uris = await UriNames.of(servers);
  const { tools } = aggregateSettingsOf(env);
  const page = (of: string) => (server: string, cursor: string | undefined) => {
    const params = { ...message.params, cursor };
    return members.ask(server, { jsonrpc: '2.0', id: 'moorage-list', method: of, params });
  };
  if (isListMethod(method)) {
    const { cursor } = message.params ?? {};
    const late = (_server: string, done: Promise<unknown>) => {
      const changed = `notifications/${method.split('/')[0]}/list_changed`;
      const say = () => aggregateOf(env, session).say(JSON.stringify({ jsonrpc: '2.0', method: changed }));
      waitUntil(done.then(say, () => undefined));
    };
    const listing = listAll({
      method,
      servers,
      cursor: typeof cursor === 'string' ? cursor : undefined,
      page: page(method),
      uris,
      tools,
      late,
    });
    return await answerFrom(
      message,
      listing.then((result) => resultResponse(message, result)),
      (same) => same,
    );
  }
  const target = findServer(message, { servers, uris, tools, page });
  const work = target.then(({ server, known }) => members.post(server, toServer(message, known)));
  let server = '';
  target.then(
    (resolved) => {
      server = resolved.server;
    },
    () => undefined,
  );
  return await answerFrom(
    message,
    work,
    (passed) => fromServer(server, passed, uris, method),
    (id) => memberEventId(server, id),
  );
}

async function open(exchange: AggregateExchange): Promise<Response> {
  const { env, request, principal, inner } = exchange;
  const { session, state } = await admit(exchange);
  const uris = await UriNames.of(await serversOf(exchange));
  const at = readMemberEventId(request.headers.get('last-event-id'));
  if (at) return await resume(exchange, state, uris, at);
  const stream = await openAggregateStream({
    env,
    session,
    principal: principal.subject,
    version: request.headers.get(VERSION_HEADER),
    inner,
    translate: (server, message) => fromServer(server, message, uris),
  });
  if (!isPinned(env)) return stream;
  const concerns = (server: string) => shownOf(exchange, [server]).length > 0;
  return await hearingAcceptance(stream, { env, principal: principal.subject, concerns });
}

/** The rest of a call's stream, from the member that it is of. The own stream of a session here cannot be resumed. */
async function resume(
  { request, inner }: AggregateExchange,
  { members }: AggregateState,
  uris: UriNames,
  { server, id }: MemberEvent,
): Promise<Response> {
  const member = Object.hasOwn(members, server) ? members[server] : undefined;
  if (member === undefined) {
    throw nothingFollows();
  }
  const version = request.headers.get(VERSION_HEADER);
  const headers = {
    accept: 'text/event-stream',
    'last-event-id': id,
    [SESSION_HEADER]: member,
    ...(version === null ? {} : { [VERSION_HEADER]: version }),
  };
  return restFrom(
    await inner(server, memberRequest('GET', headers)),
    (message) => fromServer(server, message, uris, methodOf(message)),
    (event) => memberEventId(server, event),
  );
}

/** The request that a result answers, as far as its translation depends on it: the results themselves show it. */
function methodOf(message: JsonRpcMessage): string | undefined {
  if (!('result' in message)) return undefined;
  const { contents, content, messages } = message.result;
  if (Array.isArray(contents)) return 'resources/read';
  if (Array.isArray(content)) return 'tools/call';
  return Array.isArray(messages) ? 'prompts/get' : undefined;
}

async function end(exchange: AggregateExchange): Promise<Response> {
  const { env, principal, inner, waitUntil } = exchange;
  const { session } = await admit(exchange);
  const members = unwrap(await aggregateOf(env, session).end(principal.subject));
  const ends = Object.entries(members).map(([server, member]) =>
    inner(server, memberRequest('DELETE', { [SESSION_HEADER]: member })),
  );
  waitUntil(Promise.allSettled(ends));
  return new Response(null, { status: 204 });
}

async function admit({
  env,
  request,
  principal,
}: AggregateExchange): Promise<{ session: string; state: AggregateState }> {
  const session = await sessionIdOf(env, request, ALL);
  return { session, state: unwrap(await aggregateOf(env, session).admit(principal.subject)) };
}
