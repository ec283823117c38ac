/**
 * Owns how answers leave the edge: the one place where a failure becomes HTTP and JSON-RPC, and the headers of streams.
 */
import { httpStatus, isInBand, MoorageError, toErrorBody, toMoorageError } from '../shared/errors.ts';
import { failure, type RequestId } from '../shared/jsonrpc.ts';
import { wwwAuthenticate } from './auth/challenge.ts';

/**
 * Headers of every event stream. `no-transform` and `X-Accel-Buffering` keep proxies from compressing or collecting it
 * (WHATWG HTML, "Server-sent events", authoring notes; nginx `proxy_buffering`).
 */
export const STREAM_HEADERS: Readonly<Record<string, string>> = {
  'content-type': 'text/event-stream',
  'cache-control': 'no-cache, no-transform',
  'x-accel-buffering': 'no',
};

/** What the HTTP status of some refusals requires beside the body (RFC 9110, sections 11.6.1 and 15.5.6; RFC 6585, section 4). */
export function headersOf(error: MoorageError): Record<string, string> {
  if (error.code === 'method_not_allowed' && typeof error.data.allow === 'string') return { allow: error.data.allow };
  if (error.code === 'authentication_required' || error.code === 'insufficient_scope') {
    return { 'www-authenticate': wwwAuthenticate(error.data) };
  }
  const { retryAfterMs } = error.data;
  if (typeof retryAfterMs === 'number') return { 'retry-after': String(Math.ceil(retryAfterMs / 1000)) };
  if (error.code === 'rate_limited') {
    const { retryAfterS, ratelimit, 'ratelimit-policy': policy } = error.data;
    const fields = typeof ratelimit === 'string' ? { ratelimit, 'ratelimit-policy': String(policy) } : {};
    return { 'retry-after': String(retryAfterS), ...fields };
  }
  return {};
}

/**
 * The answer for anything thrown while serving a request.
 *
 * A failure of one request of a healthy session (`isInBand`) is a JSON-RPC error with status 200; a refusal has its own
 * status and the same kind of body. `id` is the request's id where it is known; null otherwise.
 */
export function respondError(thrown: unknown, id: RequestId | null = null): Response {
  const error = toMoorageError(thrown);
  // Only bugs are logged with their stack: an expected failure is told to the caller, who can act on it.
  if (!(thrown instanceof MoorageError)) console.error('unexpected', thrown);
  const { id: readId, ...data } = error.data;
  const known = id ?? (typeof readId === 'string' || typeof readId === 'number' ? readId : null);
  const body = failure(known, new MoorageError(error.code, error.message, data));
  const status = known !== null && isInBand(error.code) ? 200 : httpStatus(error.code);
  return Response.json(body, { status, headers: status === 200 ? {} : headersOf(error) });
}

/** The same as an `ErrorBody`, for programs of ours: administration and origins. */
export function refuse(thrown: unknown): Response {
  if (!(thrown instanceof MoorageError)) console.error('unexpected', thrown);
  const error = toMoorageError(thrown);
  return Response.json(toErrorBody(error), { status: httpStatus(error.code), headers: headersOf(error) });
}
