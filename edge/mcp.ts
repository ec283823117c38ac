/**
 * Owns a server's endpoint, `/<server>/mcp`, in the era with sessions (MCP 2025-03-26 to 2025-11-25, Streamable HTTP).
 *
 * Sessions are ours: their ids are minted here, and whatever runs behind them may come and go. Messages of the stateless
 * era (2026-07-28) come to the same URL and are `modern/`'s.
 */
import { edgeServers } from 'moorage:edge-servers';
import { MoorageError } from '../shared/errors.ts';
import { parseEventId } from '../shared/event-stream.ts';
import { isRequest, type JsonRpcMessage, type JsonRpcRequest } from '../shared/jsonrpc.ts';
import type { Principal } from '../shared/principal.ts';
import { takesPriming } from '../shared/revision.ts';
import { recordingCall } from './audit/call.ts';
import { recordDenial } from './audit/record.ts';
import { answered, answerInPlace, type Known, lookUp, needsProcess, responseText } from './discovery/answer.ts';
import { INITIALIZE, type Question, questionOf } from './discovery/question.ts';
import { toldBy } from './discovery/view.ts';
import { type Carried, dispatch, viewOf } from './dispatch.ts';
import { answerAtEdge } from './edge-servers/answer.ts';
import { type Endpoint, readInitialize, SESSION_HEADER, serveEndpoint, sessionIdOf } from './endpoint.ts';
import { type Env, endIdleAfterOf, sessionKeyOf } from './env.ts';
import { guarded, guardedStream } from './guard/guard.ts';
import { isPinned } from './guard/settings.ts';
import { isModern } from './modern/classify.ts';
import { serveModern } from './modern/serve.ts';
import { unwrap } from './outcome.ts';
import { hearingAcceptance } from './pins/acceptance.ts';
import { prefersStream, type ReadMessage } from './read-message.ts';
import { openOrResume } from './resume.ts';
import { mintSessionId } from './session/id.ts';
import { memoryOf } from './session/memory.ts';
import { type Admission, sessionOf } from './session/object.ts';

export interface Exchange {
  readonly env: Env;
  readonly request: Request;
  readonly server: string;
  readonly principal: Principal;
  readonly waitUntil: (promise: Promise<unknown>) => void;
  /** The caller does not come back for the rest of a stream: none is ended early. */
  readonly wholeStreams?: boolean;
  /** The request came by way of `/mcp`, and was counted there. */
  readonly counted?: boolean;
  /** It goes with a request that the server's limit let through. */
  readonly follows?: boolean;
}

/** Serves one request to the endpoint; every failure is an answer. */
export async function serveMcp(exchange: Exchange): Promise<Response> {
  const { request, waitUntil } = exchange;
  const header = (name: string) => request.headers.get(name);
  const endpoint: Endpoint = {
    message: async (read) => {
      const serve = () => (isModern(read.message, header) ? serveModern(exchange, read) : post(exchange, read));
      return await guarded(exchange, read.message, () => recordingCall(exchange, read.message, serve));
    },
    open: () => guardedStream(exchange, () => open(exchange)),
    end: () => end(exchange),
    alone: (alone) => serveMcp({ ...exchange, request: alone, wholeStreams: true }),
    failed: (thrown) => recordDenial(exchange, thrown),
  };
  return await serveEndpoint(request, endpoint, waitUntil);
}

async function post(exchange: Exchange, read: ReadMessage): Promise<Response> {
  const { message } = read;
  if (isRequest(message) && message.method === 'initialize') return await initialize(exchange, read, message);
  const session = await sessionIdOf(exchange.env, exchange.request, exchange.server);
  const { subject } = exchange.principal;
  const wakes = needsProcess(message);
  const admission = unwrap(await sessionOf(exchange.env, session).admit(session, subject, memoryOf(message), wakes));
  return await carry(exchange, session, admission, read);
}

async function initialize(exchange: Exchange, read: ReadMessage, request: JsonRpcRequest): Promise<Response> {
  const { env, server, principal } = exchange;
  const params = readInitialize(request, read.bytes.byteLength);
  const id = await mintSessionId(await sessionKeyOf(env), server, crypto.getRandomValues(new Uint8Array(16)));
  const session = sessionOf(env, id);
  const admission = unwrap(await session.open(id, server, principal.subject, JSON.stringify(params)));
  const settle = async (answer: JsonRpcMessage, asleep: boolean) => {
    const told = 'result' in answer ? await toldBy(answer.result) : null;
    unwrap(told === null ? await session.initializeFailed(id) : await session.initialized(id, told, asleep));
    return told !== null;
  };
  let opened = true;
  try {
    const known = admission.route.runtime === 'edge' ? null : await knownOf(exchange, admission, INITIALIZE);
    if (known?.copy) {
      await settle(JSON.parse(responseText(request.id, known.copy)) as JsonRpcMessage, true);
      const response = answered(request.id, known.copy, exchange.request.headers.get('accept'));
      response.headers.set(SESSION_HEADER, id);
      return response;
    }
    const response = await carryLive(exchange, id, admission, read, {
      onAnswer: async (answer) => {
        opened = await settle(answer, false);
        known?.keep(answer);
      },
    });
    // A stream's headers leave before the server has answered: if it then fails, the id names a session that never was.
    if (!opened) return response;
    const headers = new Headers(response.headers);
    headers.set(SESSION_HEADER, id);
    return new Response(response.body, { status: response.status, headers });
  } catch (thrown) {
    await session.initializeFailed(id);
    throw thrown;
  }
}

/** Answers in the server's place where that is right, else carries the message. */
async function carry(exchange: Exchange, session: string, admission: Admission, read: ReadMessage): Promise<Response> {
  const { message } = read;
  if (admission.route.runtime === 'edge') return await carryLive(exchange, session, admission, read, {});
  const accept = exchange.request.headers.get('accept');
  const inPlace = answerInPlace(message, admission, accept);
  if (inPlace) return inPlace;
  const question = isRequest(message) ? questionOf(message) : null;
  if (!isRequest(message) || !question) return await carryLive(exchange, session, admission, read, {});
  const { copy, keep } = await knownOf(exchange, admission, question);
  if (copy && admission.asleep) return answered(message.id, copy, accept);
  return await carryLive(exchange, session, admission, read, {
    ...(copy ? { copy: new TextEncoder().encode(responseText(message.id, copy)) } : {}),
    onAnswer: async (answer, own) => {
      if (!own) keep(answer);
    },
  });
}

async function knownOf(exchange: Exchange, admission: Admission, question: Question): Promise<Known> {
  const { env, principal, waitUntil } = exchange;
  return await lookUp(env, await viewOf({ admission, principal: principal.subject }), question, waitUntil);
}

/** To the edge's own server, or to the origin. */
async function carryLive(
  exchange: Exchange,
  session: string,
  admission: Admission,
  { message, bytes }: ReadMessage,
  answering: Pick<Carried, 'onAnswer' | 'copy'>,
): Promise<Response> {
  const { env, server, principal, waitUntil } = exchange;
  const { onAnswer } = answering;
  const streams = {
    preferStream: prefersStream(exchange.request.headers.get('accept')),
    endIdleAfterMs: exchange.wholeStreams || !takesPriming(admission.revision) ? undefined : endIdleAfterOf(env),
  };
  if (admission.route.runtime !== 'edge') {
    const carried = { env, session, principal: principal.subject, admission, message, bytes };
    return await dispatch({ ...carried, ...streams, ...answering });
  }
  const factory = Object.hasOwn(edgeServers, server) ? edgeServers[server] : undefined;
  if (!factory) throw new MoorageError('session_not_found', `The edge does not run "${server}" any more.`);
  const context = { server, session, principal: principal.subject };
  return await answerAtEdge({
    env,
    factory,
    context,
    restore: admission.restore,
    revision: admission.revision,
    message,
    ...streams,
    waitUntil,
    ...(onAnswer ? { onAnswer: (answer: JsonRpcMessage) => onAnswer(answer, false) } : {}),
  });
}

async function open(exchange: Exchange): Promise<Response> {
  const session = await sessionIdOf(exchange.env, exchange.request, exchange.server);
  const resuming = { env: exchange.env, session, principal: exchange.principal.subject };
  const lastEventId = exchange.request.headers.get('last-event-id');
  const stream = await openOrResume(resuming, lastEventId);
  const ofCall = lastEventId !== null && ['origin', 'edge'].includes(parseEventId(lastEventId)?.kind ?? '');
  // At `/mcp` it is said there, once for all servers.
  if (ofCall || exchange.counted || !isPinned(exchange.env, exchange.server)) return stream;
  const concerns = (server: string) => server === exchange.server;
  return await hearingAcceptance(stream, { env: exchange.env, principal: resuming.principal, concerns });
}

async function end(exchange: Exchange): Promise<Response> {
  const session = await sessionIdOf(exchange.env, exchange.request, exchange.server);
  unwrap(await sessionOf(exchange.env, session).end(session, exchange.principal.subject));
  return new Response(null, { status: 204 });
}
