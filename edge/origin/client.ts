/**
 * Owns how the edge calls an origin: through a service binding (a Unix socket, Workers VPC) or the URL of a tunnel.
 *
 * Nothing of the client's request travels on but the message (and `Mcp-Param-*` headers of 2026-07-28): no credentials.
 * Each request is proven to come from this edge (`shared/proof.ts`).
 */
import { type ErrorCode, fromErrorBody, isErrorBody, MoorageError } from '../../shared/errors.ts';
import { MESSAGES_PATH, REPLAY_HEADER, REVISION_HEADER, SESSION_PATH, STREAMS_PATH } from '../../shared/origin-api.ts';
import { type Asked, PROOF_HEADER, signProof } from '../../shared/proof.ts';
import { isRefusalInFront } from '../../shared/service-token.ts';
import { whenRevoked, whileTrusted } from '../enrolment/ending.ts';
import { originOf } from '../enrolment/known.ts';
import { accessHeadersOf, type Env, edgeKeyOf } from '../env.ts';
import { type Loss, unknownOrigin } from '../loss.ts';
import { readBounded } from '../read-message.ts';

/** How long an origin may take until it sends headers, in milliseconds. Slow calls send theirs early. */
const HEADERS_WITHIN_MS = 300_000;
const END_WITHIN_MS = 10_000;
const MAX_ERROR_BYTES = 64 * 1024;

/** Failures that an origin may report of itself. Anything else it says is not believed. */
const ORIGIN_CODES: ReadonlySet<ErrorCode> = new Set<ErrorCode>([
  'session_unknown',
  'route_stale',
  'stream_unknown',
  'invalid_request',
  'invalid_params',
  'overloaded',
  'machine_failed',
  'server_failed',
  'outcome_unknown',
  'request_timeout',
  'body_too_large',
]);

/** The exchange broke, and nobody knows whether the origin saw the message. */
export class Broken extends Error {
  /** True where it certainly did not: no connection was made. */
  readonly unsent: boolean;
  /** The status of whatever in front of the origin did not let it pass. */
  readonly refused: number | undefined;
  constructor(unsent: boolean, refused?: number) {
    super('The exchange with the origin broke.');
    this.name = 'Broken';
    this.unsent = unsent;
    this.refused = refused;
  }

  /** What there is to say of a request that ended so. */
  get loss(): Loss {
    return { unsent: this.unsent, failure: null, refused: this.refused };
  }
}

/** What goes along with a message. */
export interface Extra {
  readonly headers: Readonly<Record<string, string>>;
  /** Aborted when the client of a modern request leaves: the exchange is then broken off. */
  readonly signal?: AbortSignal;
}

/**
 * Sends one message. Answers with the origin's response (status 200, 202 or 204).
 * @throws Broken when there was no usable answer; MoorageError with what the origin reports.
 */
export async function postMessage(
  env: Env,
  origin: string,
  grant: string,
  bytes: Uint8Array,
  replay = false,
  extra?: Extra,
): Promise<Response> {
  const headers = new Headers({ ...extra?.headers, 'content-type': 'application/json' });
  headers.set('accept', 'application/json, text/event-stream');
  if (replay) headers.set(REPLAY_HEADER, '1');
  const message = watched(bytes);
  const timeout = new AbortController();
  const timer = setTimeout(() => timeout.abort(), HEADERS_WITHIN_MS);
  const stopLooking = whenRevoked(env, origin, () => timeout.abort());
  let response: Response;
  try {
    response = await call(
      env,
      origin,
      { method: 'POST', path: MESSAGES_PATH, headers, grant, body: bytes },
      {
        body: message.body,
        signal: extra?.signal ? AbortSignal.any([timeout.signal, extra.signal]) : timeout.signal,
      },
    );
  } catch (thrown) {
    if (thrown instanceof MoorageError) throw thrown;
    throw new Broken(!message.handedOver());
  } finally {
    clearTimeout(timer);
    stopLooking();
  }
  if (isOfAgent(response)) return whileTrusted(env, origin, response);
  throw await failureOf(response);
}

/**
 * A call's stream from the event after the nth on (status 200), or word that nothing follows (204).
 * @throws Broken when there was no usable answer; MoorageError with what the origin reports.
 */
export async function getStream(
  env: Env,
  origin: string,
  grant: string,
  at: { readonly stream: string; readonly n: number },
  revision: string | null,
): Promise<Response> {
  const headers = new Headers();
  if (revision !== null) headers.set(REVISION_HEADER, revision);
  let response: Response;
  try {
    const path = `${STREAMS_PATH}${at.stream}?after=${at.n}`;
    response = await call(env, origin, { method: 'GET', path, headers, grant, body: null });
  } catch (thrown) {
    if (thrown instanceof MoorageError) throw thrown;
    throw new Broken(true);
  }
  if (isOfAgent(response)) return whileTrusted(env, origin, response);
  throw await failureOf(response);
}

/** Tells an origin that a session ended. An origin that is away finds out by its own expiry. */
export async function endAtOrigin(env: Env, origin: string, grant: string): Promise<void> {
  try {
    const asked = { method: 'DELETE', path: SESSION_PATH, headers: new Headers(), grant, body: null };
    await call(env, origin, asked, { signal: AbortSignal.timeout(END_WITHIN_MS) });
  } catch {
    console.warn(`origin ${origin} was not told of an ended session`);
  }
}

/** One request with its grant and a proof of its own. `sent` says how its body travels and what ends it. */
async function call(
  env: Env,
  id: string,
  asked: Asked & { readonly headers: Headers },
  sent: Pick<RequestInit, 'body' | 'signal'> = {},
): Promise<Response> {
  const origin = await originOf(env, id);
  if (!origin) throw unknownOrigin(id);
  const { method, path, headers, grant } = asked;
  headers.set('authorization', `Bearer ${grant}`);
  headers.set(PROOF_HEADER, await signProof(await edgeKeyOf(env), id, asked, crypto.randomUUID(), Date.now()));
  // An agent leads nowhere else: a redirect is of something in front of it.
  const init = { ...sent, method, headers, redirect: 'manual' } as const;
  if (origin.service !== undefined) {
    // Whoever configures the edge names this binding: no type of ours can know it, so what is there is looked at below.
    const service = (env as unknown as Record<string, unknown>)[origin.service];
    if (!isFetcher(service)) {
      throw new MoorageError('internal', `MOORAGE_ORIGINS names a service "${origin.service}" that is not bound.`);
    }
    return await service.fetch(`http://origin${path}`, init);
  }
  for (const [name, value] of Object.entries(accessHeadersOf(env, id))) headers.set(name, value);
  const url = new URL(path, origin.url);
  return await (env.ORIGIN_NETWORK ?? globalThis).fetch(url.href, init);
}

function isFetcher(value: unknown): value is Fetcher {
  return typeof value === 'object' && value !== null && 'fetch' in value && typeof value.fetch === 'function';
}

/** Whether a successful answer can be the agent's own: some proxies put a page for people in its place. */
function isOfAgent(response: Response): boolean {
  return response.status === 200 ? /^(application\/json|text\/event-stream)\b/.test(typeOf(response)) : response.ok;
}

const typeOf = ({ headers }: Response): string => headers.get('content-type') ?? '';

/** What any other answer means. One that is not an agent's comes from the tunnel in front of it; nothing of it is told. */
async function failureOf(response: Response): Promise<Error> {
  const { status } = response;
  if (!typeOf(response).startsWith('application/json')) {
    await response.body?.cancel();
    if (response.ok || isRefusalInFront(status)) return new Broken(true, status);
    // 530 and 521-523: Cloudflare found no connector or no listener, so nothing arrived (Cloudflare 5xx errors).
    return new Broken(status === 530 || (status >= 521 && status <= 523));
  }
  let body: unknown;
  try {
    body = JSON.parse(new TextDecoder().decode(await readBounded(response, MAX_ERROR_BYTES)));
  } catch {
    // Unreadable: the message did arrive, and what became of it is unknown.
    return new Broken(false);
  }
  if (!isErrorBody(body) && isRefusalInFront(status)) return new Broken(true, status);
  const error = fromErrorBody(body);
  if (ORIGIN_CODES.has(error.code)) return error;
  if (error.code === 'grant_invalid') {
    return new MoorageError(
      'internal',
      'The origin refused the edge: its pinned key is another, or the clocks of the two differ by more than a minute.',
    );
  }
  return new MoorageError('internal', 'The origin failed in a way that it does not explain. Its log has the details.');
}

/**
 * A body that knows whether it may have arrived whole. Its first byte goes alone; the rest is handed over only when the
 * runtime asks for more, which it does once there is a connection that took the first. A rejected fetch itself does not
 * tell a refused connection from one that broke after the message.
 */
function watched(bytes: Uint8Array): { readonly body: ReadableStream<Uint8Array>; handedOver(): boolean } {
  let sent = 0;
  const body = new ReadableStream<Uint8Array>(
    {
      pull(controller) {
        const end = sent === 0 ? 1 : bytes.byteLength;
        controller.enqueue(bytes.subarray(sent, end));
        sent = end;
        if (sent === bytes.byteLength) controller.close();
      },
    },
    { highWaterMark: 0 },
  );
  return { body, handedOver: () => sent > 1 };
}
