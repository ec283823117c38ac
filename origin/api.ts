/**
 * Owns the agent's HTTP interface (`shared/origin-api.ts`): verifies the grant on every request, reads the body within
 * its bound, and hands the message to its session's process.
 *
 * Order matters: nothing of a request is looked at before its grant and its proof are verified, nothing of its body before
 * the proof covers it.
 *
 * Messages of the era without sessions (`Moorage-Era: modern`) go to their lane. Their failures are answers: the exchange
 * itself succeeds as soon as a request was read, and a connection that closes before its answer cancels the request.
 */
import type { IncomingMessage, RequestListener, ServerResponse } from 'node:http';
import { httpStatus, MoorageError, toErrorBody, toMoorageError } from '../shared/errors.ts';
import { parseExactly } from '../shared/exact-json.ts';
import { type EdgeKeys, type Grant, verifyGrant } from '../shared/grant.ts';
import { isRequest, type JsonRpcMessage, type JsonRpcRequest, parseJson, parseMessage } from '../shared/jsonrpc.ts';
import { PARAM_HEADER_PREFIX } from '../shared/mirrored-headers.ts';
import {
  ERA_HEADER,
  LISTS_HEADER,
  MAX_MESSAGE_BYTES,
  MAX_REPLAYED,
  MESSAGES_PATH,
  PREFER_HEADER,
  REPLAY_HEADER,
  REVISION_HEADER,
  SESSION_PATH,
  STREAMS_PATH,
  WAKE_HEADER,
} from '../shared/origin-api.ts';
import { PROOF_HEADER, type Proof, verifyProof } from '../shared/proof.ts';
import { takesPriming } from '../shared/revision.ts';
import { Answer, type AnswerOptions, sendJson } from './answer.ts';
import type { Lanes, Sender } from './bridge/lanes.ts';
import type { SessionPeer } from './bridge/peer.ts';
import type { Sessions } from './bridge/sessions.ts';
import { Connection } from './journal/connection.ts';
import type { Journal } from './journal/journal.ts';
import type { Log } from './log.ts';
import { placed } from './places.ts';
import type { Replays } from './replays.ts';
import type { ServerDefinition } from './server.ts';

export interface ApiOptions {
  readonly originId: string;
  readonly edgeKeys: () => EdgeKeys;
  readonly replays: Replays;
  readonly servers: ReadonlyMap<string, ServerDefinition>;
  readonly sessions: Sessions;
  readonly journal: Journal;
  readonly lanes: Lanes;
  /** Called when a session or a lane has ended, with what served it. */
  readonly ended?: (definition: ServerDefinition) => void;
  readonly log: Log;
}

/** The request listener for a `node:http` server. */
export function originApi(options: ApiOptions): RequestListener {
  return (request, response) => {
    handle(options, request, response).catch((thrown: unknown) => {
      const error = toMoorageError(thrown);
      if (error.code === 'internal') {
        options.log.error(`request: ${thrown instanceof Error ? (thrown.stack ?? thrown.message) : String(thrown)}`);
      }
      if (response.headersSent || response.destroyed) response.destroy();
      else sendJson(response, httpStatus(error.code), toErrorBody(error));
    });
  };
}

async function handle(options: ApiOptions, request: IncomingMessage, response: ServerResponse): Promise<void> {
  const { grant, proof } = await authenticate(options, request);
  const known = options.servers.get(grant.server);
  if (!known) throw new MoorageError('route_stale', `The server "${grant.server}" is not at this origin.`);
  const definition = await placed(known, grant);
  const isModern = request.headers[ERA_HEADER] === 'modern';
  if (request.method !== 'POST' && !(await proof.covers(null))) throw altered();
  if (request.method === 'DELETE' && request.url === SESSION_PATH) {
    if (isModern) {
      await options.lanes.end(senderOf(grant), definition);
    } else {
      options.sessions.end(grant.session);
      options.journal.forget(grant.session);
    }
    options.ended?.(definition);
    response.writeHead(204).end();
    return;
  }
  if (request.method === 'GET' && request.url?.startsWith(STREAMS_PATH)) {
    resume(options, grant, request, response);
    return;
  }
  if (request.method !== 'POST' || request.url !== MESSAGES_PATH) {
    throw new MoorageError('not_found', 'The origin has no such path.');
  }
  const bytes = await readBody(request);
  if (!(await proof.covers(bytes))) throw altered();
  const body = parseJson(bytes.toString('utf8'), parseExactly);
  if (request.headers[REPLAY_HEADER] === '1') {
    const [initialize, ...requests] = parseReplay(body);
    const { initialized } = await options.sessions.open(grant.session, definition, initialize, requests);
    sendJson(response, 200, initialized);
    return;
  }
  const message = parseMessage(body);
  if (isModern) {
    await passModern(options, definition, grant, message, request, response);
    return;
  }
  await pass(options, definition, grant, message, request, response);
}

/** The initialize of a session and the requests that follow it. @throws MoorageError `invalid_request`. */
function parseReplay(body: unknown): [JsonRpcRequest, ...JsonRpcRequest[]] {
  const messages = Array.isArray(body) && body.length <= MAX_REPLAYED ? body.map(parseMessage) : [];
  const [first, ...others] = messages.filter(isRequest);
  if (first?.method !== 'initialize' || others.length + 1 !== messages.length) {
    throw new MoorageError('invalid_request', 'A replay is an array of requests that begins with initialize.');
  }
  return [first, ...others];
}

/** A stream of this session, from where its reader was. @throws MoorageError `stream_unknown`. */
function resume({ journal }: ApiOptions, grant: Grant, request: IncomingMessage, response: ServerResponse): void {
  const { pathname, searchParams } = new URL(request.url ?? '', 'http://origin');
  const stream = journal.find(grant.session, pathname.slice(STREAMS_PATH.length));
  const after = Number(searchParams.get('after') ?? '0');
  if (!stream || !Number.isSafeInteger(after) || after < 0 || after > stream.last) {
    throw new MoorageError('stream_unknown', 'This session has no such stream (any more).');
  }
  if (stream.ended && !stream.after(after)) response.writeHead(204).end();
  else new Connection(response, stream, { after, primed: isPrimed(request) });
}

const isPrimed = (request: IncomingMessage) => takesPriming(request.headers[REVISION_HEADER]?.toString());

async function pass(
  { sessions, journal, lanes }: ApiOptions,
  definition: ServerDefinition,
  grant: Grant,
  message: JsonRpcMessage,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  if (!isRequest(message)) {
    const { peer } = await sessions.get(grant.session, definition);
    peer.notify(grant.session, message);
    response.writeHead(202).end();
    return;
  }
  const options = {
    wake: request.headers[WAKE_HEADER] !== 'no',
    primed: isPrimed(request),
    preferStream: request.headers[PREFER_HEADER] === 'stream',
  };
  if (message.method !== 'initialize') {
    await passCall({ sessions, journal, lanes }, definition, grant, message, options, response);
    return;
  }
  const answer = new Answer(response, message.id, options);
  try {
    answer.answer((await sessions.open(grant.session, definition, message)).initialized);
  } catch (thrown) {
    if (!(thrown instanceof MoorageError)) throw thrown;
    answer.fail(thrown);
  }
}

/** The session's process must hear before there is an answer: a session that is lost can be opened again until then. */
async function passCall(
  { sessions, journal, lanes }: Pick<ApiOptions, 'sessions' | 'journal' | 'lanes'>,
  definition: ServerDefinition,
  grant: Grant,
  message: JsonRpcRequest,
  options: AnswerOptions & { readonly wake: boolean },
  response: ServerResponse,
): Promise<void> {
  try {
    const { peer } = await sessions.get(grant.session, definition, options.wake);
    lanes.reached(definition);
    if (peer.listsChanged) response.setHeader(LISTS_HEADER, 'changed');
    const resumable = () => journal.begin(grant.session, message);
    peer.request(grant.session, message, new Answer(response, message.id, { ...options, resumable }));
  } catch (thrown) {
    if (!(thrown instanceof MoorageError)) throw thrown;
    new Answer(response, message.id, options).fail(thrown);
  }
}

async function passModern(
  { lanes }: ApiOptions,
  definition: ServerDefinition,
  grant: Grant,
  message: JsonRpcMessage,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const sender = senderOf(grant);
  if (!isRequest(message)) {
    await lanes.notify(sender, definition, message);
    response.writeHead(202).end();
    return;
  }
  const gone = new AbortController();
  const wake = request.headers[WAKE_HEADER] !== 'no';
  // That nothing is awake is for the edge, which has another answer, and not for the client.
  const answer = new Answer(response, message.id, { inBand: wake });
  response.once('close', () => {
    if (!answer.settled) gone.abort();
  });
  try {
    const reached = ({ listsChanged }: SessionPeer) => {
      if (listsChanged && !response.headersSent) response.setHeader(LISTS_HEADER, 'changed');
    };
    const headers = paramHeaders(request);
    await lanes.request({ sender, definition, message, headers, signal: gone.signal, wake, reached }, answer);
  } catch (thrown) {
    if (!(thrown instanceof MoorageError)) throw thrown;
    answer.fail(thrown);
  }
}

const senderOf = ({ principal, session }: Grant): Sender => ({ principal, lane: session });

/** Arguments that the client repeats in headers: unknown ones pass untouched (2026-07-28, streamable-http). */
function paramHeaders(request: IncomingMessage): Record<string, string> {
  const named = Object.entries(request.headers).filter(([name]) => name.startsWith(PARAM_HEADER_PREFIX));
  return Object.fromEntries(named.map(([name, value]) => [name, [value ?? ''].flat().join(', ')]));
}

async function authenticate(
  { originId, edgeKeys, replays }: ApiOptions,
  request: IncomingMessage,
): Promise<{ grant: Grant; proof: Proof }> {
  const [scheme, token] = (request.headers.authorization ?? '').split(' ');
  const signed = request.headers[PROOF_HEADER];
  if (scheme !== 'Bearer' || !token || typeof signed !== 'string')
    throw new MoorageError('grant_invalid', 'A grant and its proof are needed: this interface is for the edge.');
  const now = Date.now();
  const keys = edgeKeys();
  const grant = await verifyGrant(keys, token, originId, now);
  const asked = {
    method: request.method ?? '',
    path: request.url ?? '',
    headers: Object.entries(request.headersDistinct).map(
      ([name, values]) => [name, (values ?? []).join(', ')] as const,
    ),
    grant: token,
  };
  const proof = await verifyProof(keys, signed, originId, asked, now);
  replays.take(proof);
  return { grant, proof };
}

const altered = (): MoorageError => new MoorageError('grant_invalid', 'The request was altered on its way.');

async function readBody(request: IncomingMessage): Promise<Buffer<ArrayBuffer>> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    size += chunk.length;
    if (size > MAX_MESSAGE_BYTES) {
      throw new MoorageError('body_too_large', `A message holds at most ${MAX_MESSAGE_BYTES} bytes.`);
    }
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}
