/**
 * Owns `/mcp`: every server that the caller may use, as one: for clients with sessions here, for those without in `modern.ts`.
 *
 * Tools and prompts are named `server__name`, resources `server+uri` (`names.ts`). A request goes to the server that its
 * name says; lists are those of all servers; notifications come from all. Everything is done by way of the servers' own
 * endpoints. Invariant: one server that fails takes nothing from the others.
 */
import { MoorageError } from '../../shared/errors.ts';
import {
  isRequest,
  isResponse,
  type JsonRpcMessage,
  type JsonRpcRequest,
  type RequestId,
} from '../../shared/jsonrpc.ts';
import { isLegacyRevision, LEGACY_REVISIONS } from '../../shared/revision.ts';
import { aggregateSettingsOf, sessionKeyOf } from '../env.ts';
import { limited } from '../limits/limit.ts';
import { checkVersion, type Exchange, initializeParams, SESSION_HEADER } from '../mcp.ts';
import { isModern } from '../modern/classify.ts';
import { unwrap } from '../outcome.ts';
import { accepts, readMessage } from '../read-message.ts';
import { respondError } from '../respond.ts';
import { isSessionId, mintSessionId } from '../session/id.ts';
import { nothingFollows, sessionNotFound } from '../session/refusals.ts';
import { answerFrom, restFrom, resultResponse } from './answer.ts';
import { type MemberEvent, memberEventId, readMemberEventId } from './event-id.ts';
import { CAPABILITIES, findServer, INSTRUCTIONS, SERVER_INFO, serversOf } from './find.ts';
import { isListMethod, listAll } from './lists.ts';
import { type Inner, Members, memberRequest } from './members.ts';
import { serveAggregateModern } from './modern.ts';
import { UriNames } from './names.ts';
import { type AggregateState, aggregateOf } from './object.ts';
import { fromServer, readQuestionId, toServer } from './rewrite.ts';
import { openAggregateStream } from './stream.ts';

/** Stands for all servers in the tag of a session id. No server can have this name. */
const ALL = '*';
const VERSION_HEADER = 'mcp-protocol-version';

export interface AggregateExchange extends Omit<Exchange, 'server'> {
  readonly inner: Inner;
}

/** Serves one request to `/mcp`; every failure is an answer. */
export async function serveAggregate(exchange: AggregateExchange): Promise<Response> {
  let id: RequestId | null = null;
  try {
    switch (exchange.request.method) {
      case 'POST': {
        const { message } = await readMessage(exchange.request);
        if (isRequest(message)) id = message.id;
        const modern = isModern(message, (name) => exchange.request.headers.get(name));
        return await limited(exchange, message, () =>
          modern ? serveAggregateModern(exchange, message) : post(exchange, message),
        );
      }
      case 'GET':
        return await limited(exchange, null, () => get(exchange));
      case 'DELETE':
        return await end(exchange);
      default:
        throw new MoorageError('method_not_allowed', 'An MCP endpoint takes POST, GET and DELETE.', {
          allow: 'POST, GET, DELETE, OPTIONS',
        });
    }
  } catch (thrown) {
    return respondError(thrown, id);
  }
}

async function post(exchange: AggregateExchange, message: JsonRpcMessage): Promise<Response> {
  if (isRequest(message) && message.method === 'initialize') return await initialize(exchange, message);
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

async function initialize({ env, principal }: AggregateExchange, request: JsonRpcRequest): Promise<Response> {
  const parsed = initializeParams.safeParse(request.params);
  if (!parsed.success) {
    throw new MoorageError('invalid_params', `initialize is malformed: ${parsed.error.issues[0]?.message}.`);
  }
  const { protocolVersion } = parsed.data;
  const spoken = isLegacyRevision(protocolVersion) ? protocolVersion : LEGACY_REVISIONS[0];
  const id = await mintSessionId(await sessionKeyOf(env), ALL, crypto.getRandomValues(new Uint8Array(16)));
  await aggregateOf(env, id).open(principal.subject, JSON.stringify({ ...parsed.data, protocolVersion: spoken }));
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
    const level = String(message.params?.level);
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

async function get(exchange: AggregateExchange): Promise<Response> {
  const { env, request, principal, inner } = exchange;
  if (!accepts(request.headers.get('accept'), ['text/event-stream'])) {
    throw new MoorageError('not_acceptable', 'The stream of a session is text/event-stream: Accept must list it.');
  }
  const { session, state } = await admit(exchange);
  const uris = await UriNames.of(await serversOf(exchange));
  const at = readMemberEventId(request.headers.get('last-event-id'));
  if (at) return await resume(exchange, state, uris, at);
  return await openAggregateStream({
    env,
    session,
    principal: principal.subject,
    version: request.headers.get(VERSION_HEADER),
    inner,
    translate: (server, message) => fromServer(server, message, uris),
  });
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
  const session = request.headers.get(SESSION_HEADER);
  if (session === null) {
    throw new MoorageError('session_required', `Send initialize first, then its ${SESSION_HEADER} with every request.`);
  }
  if (!(await isSessionId(await sessionKeyOf(env), ALL, session))) {
    throw sessionNotFound();
  }
  checkVersion(request);
  return { session, state: unwrap(await aggregateOf(env, session).admit(principal.subject)) };
}
