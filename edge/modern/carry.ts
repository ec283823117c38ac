/**
 * Owns the carrying of one request of the stateless era (2026-07-28) to an origin, and of the answer back.
 *
 * Invariants: the request goes out once, or again where the origin said that it did not take it or `attempt.ts` allows it;
 * it is always answered; a client that leaves cancels it, so its disconnect is carried on (2026-07-28, "Cancellation").
 */
import { MoorageError } from '../../shared/errors.ts';
import type { JsonRpcNotification, JsonRpcRequest } from '../../shared/jsonrpc.ts';
import { nameOf, PARAM_HEADER_PREFIX } from '../../shared/mirrored-headers.ts';
import { ERA_HEADER, WAKE_HEADER } from '../../shared/origin-api.ts';
import { REMOVED_NOTIFICATIONS } from '../../shared/rev-2026-07-28.ts';
import { type Attempt, answerTo, attemptOf, unanswered } from '../attempt.ts';
import { isDiscovery } from '../discovery/question.ts';
import type { Env } from '../env.ts';
import { type LaneAdmission, type LaneHolder, laneOf } from '../lane/object.ts';
import { Broken, postMessage } from '../origin/client.ts';
import { unwrap } from '../outcome.ts';
import { Discovery, told, viewOf } from './discovery.ts';
import { parameterMismatch } from './parameters.ts';
import { withStatus } from './status.ts';

export interface CarriedRequest {
  readonly env: Env;
  readonly holder: LaneHolder;
  readonly request: JsonRpcRequest;
  readonly bytes: Uint8Array;
  /** The client's headers, of which only `Mcp-Param-*` travel on. */
  readonly headers: Headers;
  /** Aborted when the client leaves. */
  readonly signal: AbortSignal;
  readonly waitUntil: (promise: Promise<unknown>) => void;
}

/** Carries a request. @throws MoorageError. */
export async function carryModern(carried: CarriedRequest): Promise<Response> {
  const { env, request, signal } = carried;
  const [admission, discovery] = await Promise.all([admitted(carried, null), Discovery.of(carried)]);
  const { anyParameters, woken } = admission;
  const copy = discovery?.copy ?? null;
  if (discovery && copy !== null && !woken) {
    await discovery.useCopy(anyParameters);
    return await withStatus(new Response(copy, { headers: { 'content-type': 'application/json' } }));
  }
  const mismatch = parameterMismatch(admission.parameters, request.params?.arguments, (name) =>
    carried.headers.get(name),
  );
  if (mismatch) throw mismatch;
  try {
    const answer = await answerTo({
      env,
      route: admission.route,
      message: request,
      view: () => viewOf(carried),
      once: () => requestOnce(carried, admission, copy),
      ...(discovery ? { onAnswer: (answer, own) => discovery.keep(answer, own, anyParameters), told } : {}),
    });
    const isStream = answer.headers.get('content-type')?.startsWith('text/event-stream');
    return isStream ? answer : await withStatus(answer);
  } catch (thrown) {
    // Nobody is left to be answered; 499 is what proxies log for it.
    if (signal.aborted) return new Response(null, { status: 499 });
    throw thrown;
  }
}

/**
 * Carries a notification: the revision defines none of a client over HTTP, so it is one of an extension or of the future.
 * @throws MoorageError.
 */
export async function carryNotification(
  { env, holder, bytes, headers }: Pick<CarriedRequest, 'env' | 'holder' | 'bytes' | 'headers'>,
  { method }: JsonRpcNotification,
): Promise<void> {
  if (REMOVED_NOTIFICATIONS.has(method)) return;
  const { route, grant } = unwrap(await laneOf(env, holder.id).admit(holder, null, false, null));
  try {
    const response = await postMessage(env, route.origin, grant, bytes, false, { headers: travelling(headers) });
    await response.body?.cancel();
  } catch (thrown) {
    // Nobody waits for an answer: what an origin that is away did not hear is lost, as on any connection that breaks.
    if (!(thrown instanceof Broken)) throw thrown;
  }
}

/** `copy` stands in where the lane's process is not there to be asked: it is not worth waking one. */
async function requestOnce(carried: CarriedRequest, first: LaneAdmission, copy: string | null): Promise<Attempt> {
  const { env, bytes, signal } = carried;
  const wake: Record<string, string> = copy === null ? {} : { [WAKE_HEADER]: 'no' };
  const extra = { headers: { ...travelling(carried.headers), ...wake }, signal };
  let admission = first;
  for (let rerouted = false; ; rerouted = true) {
    try {
      const response = await postMessage(env, admission.route.origin, admission.grant, bytes, false, extra);
      if (response.status === 200) return await attemptOf(response);
      await response.body?.cancel();
      throw unanswered();
    } catch (thrown) {
      if (signal.aborted) throw thrown;
      const gone = thrown instanceof MoorageError && thrown.code === 'session_unknown';
      if (copy !== null && (gone || thrown instanceof Broken)) {
        return { type: 'whole', bytes: new TextEncoder().encode(copy), own: true };
      }
      if (thrown instanceof Broken) return { type: 'lost', loss: thrown.loss };
      if (!(thrown instanceof MoorageError) || thrown.code !== 'route_stale') throw thrown;
      if (rerouted) throw new MoorageError('server_failed', 'The origin does not run this server any more. Try again.');
      admission = await admitted(carried, admission.grant);
    }
  }
}

async function admitted({ env, holder, request }: CarriedRequest, stale: string | null): Promise<LaneAdmission> {
  const tool = request.method === 'tools/call' ? (nameOf(request) ?? null) : null;
  return unwrap(await laneOf(env, holder.id).admit(holder, tool, !isDiscovery(request.method), stale));
}

/** What goes to the origin beside the request. */
function travelling(headers: Headers): Record<string, string> {
  const params = [...headers].filter(([name]) => name.startsWith(PARAM_HEADER_PREFIX));
  return { [ERA_HEADER]: 'modern', ...Object.fromEntries(params) };
}
