/**
 * Owns what may be said, and done, about a request whose answer was lost on the way: with its process, its machine or the
 * connection to its origin.
 *
 * A request is repeated, once, only where doing it twice does no more than doing it once: MCP's own methods but the
 * calling of tools, and tools whose server says so (2025-11-25, "ToolAnnotations": readOnlyHint, idempotentHint).
 */
import { MoorageError } from '../shared/errors.ts';
import type { JsonRpcFailure, JsonRpcMessage } from '../shared/jsonrpc.ts';
import { directoryOf } from './directory/object.ts';
import type { OriginRoute } from './directory/route.ts';
import type { View } from './discovery/view.ts';
import { originNow } from './enrolment/known.ts';
import type { Env } from './env.ts';

export interface Loss {
  /** It certainly did not arrive: no connection was made. */
  readonly unsent: boolean;
  /** The agent's own words, where it lives to tell. */
  readonly failure: JsonRpcFailure | null;
  /** The status with which something in front of the origin answered in its place: it is not let through. */
  readonly refused?: number | undefined;
}

/** A request that may be lost. */
export interface LostRequest {
  readonly env: Env;
  readonly route: OriginRoute;
  readonly message: JsonRpcMessage;
  /** Whose view of the server its client has. */
  view(): Promise<View>;
}

/** Methods that change nothing that matters when they are repeated: everything of MCP but the calling of tools. */
const HARMLESS =
  /^(initialize|ping|server\/discover|subscriptions\/listen|completion\/complete|logging\/setLevel|(tools|prompts|resources|resources\/templates|roots)\/list|prompts\/get|resources\/(read|subscribe|unsubscribe)|tasks\/(get|list|result|cancel))$/;

/** Whether a request may be repeated though it may have been carried out. One that its client cancelled may not. */
export async function isRepeatable({ env, message, view }: LostRequest, { failure }: Loss): Promise<boolean> {
  if (!('method' in message) || (failure && dataOf(failure).cause === 'cancelled')) return false;
  if (HARMLESS.test(message.method)) return true;
  const name = message.params?.name;
  if (message.method !== 'tools/call' || typeof name !== 'string') return false;
  return await directoryOf(env).mayRepeatTool(await view(), name);
}

/** What the client is told. `repeatable` as above; where it was repeated in vain, the loss is the second one. */
export async function explain(
  lost: LostRequest,
  { unsent, failure, refused }: Loss,
  repeatable: boolean,
): Promise<MoorageError> {
  if (failure) {
    return new MoorageError('outcome_unknown', failure.error.message, { ...dataOf(failure), retryable: repeatable });
  }
  if (refused !== undefined) return refusedInFront(lost, refused);
  const { message } = lost;
  const harmless = 'method' in message && HARMLESS.test(message.method);
  if (unsent || harmless) return await away(lost);
  const advice = repeatable ? 'Its server says that it may be repeated.' : 'Check before you repeat it.';
  return new MoorageError(
    'outcome_unknown',
    `The connection to the origin broke while the call was running. It may or may not have taken effect. ${advice}`,
    { cause: 'connection_lost', retryable: repeatable },
  );
}

function dataOf({ error }: JsonRpcFailure): Record<string, unknown> {
  return error.data !== null && typeof error.data === 'object' ? (error.data as Record<string, unknown>) : {};
}

function refusedInFront({ route: { origin } }: LostRequest, status: number): MoorageError {
  return new MoorageError(
    'origin_refused',
    `What stands in front of origin "${origin}", such as Cloudflare Access, does not let this edge through (status ${status}). Whoever runs this router puts the origin's service token into MOORAGE_ORIGIN_ACCESS.`,
    { origin, status, retryable: false },
  );
}

/** An origin that was revoked, or is gone from the configuration. */
export const unknownOrigin = (origin: string): MoorageError =>
  new MoorageError('origin_away', `Origin "${origin}" is not known to this edge any more.`, {
    origin,
    retryable: false,
  });

async function away({ env, route }: LostRequest): Promise<MoorageError> {
  const { origin } = route;
  if (!(await originNow(env, origin))) return unknownOrigin(origin);
  const { connected, lastSeen } = await env.ORIGIN.get(env.ORIGIN.idFromName(origin)).presence();
  const state = connected ? 'does not answer, though its agent is connected' : 'is away';
  const seen = lastSeen === null ? 'It was never seen' : `It was last seen ${lastSeen}`;
  return new MoorageError(
    'origin_away',
    `Origin "${origin}", which runs this server, ${state}. ${seen}. Start its agent, then try again.`,
    { origin, lastSeen, retryable: true },
  );
}
