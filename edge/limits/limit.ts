/**
 * Owns how limits hold at the edge: a request is let through by its principal's Limiter object or answered 429, and a call
 * keeps its slot while it runs.
 *
 * One hop to an object where limits are configured (and from it one to the server's, where that has one), none where they are
 * not. The slot of a call whose client left before
 * 2026-07-28 is given back when its lease ends: the call goes on at its server, and leaving would be a way around the limit.
 */
import { MoorageError } from '../../shared/errors.ts';
import { isRequest, type JsonRpcMessage } from '../../shared/jsonrpc.ts';
import type { Principal } from '../../shared/principal.ts';
import { claimsModern } from '../../shared/rev-2026-07-28.ts';
import type { Env } from '../env.ts';
import { addressOf } from './address.ts';
import { LEASE_MS, type LimitName, type Standing } from './ledger.ts';
import { addressLimiterOf, limiterOf } from './object.ts';
import { limitsOf, serverRateOf } from './settings.ts';
import { holding, type Slot } from './slot.ts';

/** Longer than any id of ours. */
const MAX_SESSION_LENGTH = 64;
/** Requests that make a server work: these are counted by the day, and while they run. */
const CALLS = /^(?:tools\/call|prompts\/get|resources\/read|completion\/complete)$/;

export interface Counted {
  readonly env: Env;
  readonly principal: Principal;
  readonly request: Request;
  /** The server that it goes to. Absent at `/mcp`, and where it will not get there. */
  readonly server?: string | undefined;
  /** It came by way of `/mcp`, where it was counted for its principal. */
  readonly counted?: boolean;
  readonly waitUntil: (promise: Promise<unknown>) => void;
}

/**
 * Serves a message if limits let it through. `message` null: a stream is opened.
 * @throws MoorageError `rate_limited` (429), and what `serve` does.
 */
export async function limited(
  counted: Counted,
  message: JsonRpcMessage | null,
  serve: () => Promise<Response>,
): Promise<Response> {
  if (!concerns(counted)) return await serve();
  const { env, principal } = counted;
  const request = message !== null && isRequest(message) ? message : null;
  const call = request && CALLS.test(request.method) && !counted.counted ? crypto.randomUUID() : null;
  const limiter = limiterOf(env, principal.subject);
  const asked = {
    server: limitedServer(counted),
    session: sessionOf(counted),
    counted: counted.counted ?? false,
    call,
  };
  const taken = await limiter.take(asked, principal.subject);
  if (!taken.allowed) throw tooMuch(taken.by, taken.waitMs, taken.standings);
  if (call === null || limitsOf(env).concurrent === undefined) return told(await serve(), taken.standings);
  const timer = setInterval(() => counted.waitUntil(limiter.renew(call).catch(() => undefined)), LEASE_MS / 3);
  const slot: Slot = {
    release: () => {
      clearInterval(timer);
      counted.waitUntil(limiter.release(call).catch(() => undefined));
    },
    abandon: () => clearInterval(timer),
  };
  try {
    const response = told(await serve(), taken.standings);
    return holding(response, slot, claimsModern(request?.params));
  } catch (thrown) {
    slot.release();
    throw thrown;
  }
}

/** @throws MoorageError `rate_limited` when too much comes from where the request does, whoever sends it. */
export async function limitAddress(env: Env, request: Request): Promise<void> {
  const { perIp } = limitsOf(env);
  if (!perIp) return;
  const address = requestAddress(request);
  if (address === null) return;
  const waitMs = await addressLimiterOf(env, address).takeAddress(address);
  if (waitMs > 0) throw tooMuch('ip', waitMs);
}

/** Where a request comes from, or null where that cannot be known. */
export function requestAddress(request: Request): string | null {
  const peer = (request.cf as { clientIp?: unknown } | undefined)?.clientIp;
  return addressOf(request.headers, typeof peer === 'string' ? peer : null);
}

/** Nobody is counted apart by what could not be a session id of ours. */
function sessionOf({ request }: Counted): string | null {
  const session = request.headers.get('mcp-session-id');
  return session !== null && session.length <= MAX_SESSION_LENGTH ? session : null;
}

/** The server whose own limit counts. */
function limitedServer({ env, server }: Counted): string | null {
  return server !== undefined && serverRateOf(limitsOf(env), server) ? server : null;
}

function concerns(counted: Counted): boolean {
  const { perPrincipal, perSession, concurrent, daily } = limitsOf(counted.env);
  if (limitedServer(counted) !== null) return true;
  return !counted.counted && [perPrincipal, perSession, concurrent, daily].some((limit) => limit !== undefined);
}

const ADVICE: Readonly<Record<LimitName, string>> = {
  principal: 'You send more requests than you may',
  session: 'This session sends more requests than it may',
  server: 'All callers together send more requests to this server than it may get, and you have had your share',
  concurrent: 'As many of your calls run as may run at the same time',
  daily: 'You have made as many calls as you may in a day',
  ip: 'More requests come from your address than may',
};

function tooMuch(limit: LimitName, waitMs: number, standings: readonly Standing[] = []): MoorageError {
  const retryAfterS = Math.max(1, Math.ceil(waitMs / 1000));
  return new MoorageError('rate_limited', `${ADVICE[limit]}. Nothing was done: try again in ${retryAfterS} s.`, {
    limit,
    retryAfterS,
    retryable: true,
    // `respond.ts` makes headers of them; answers on a stream have none.
    ...fieldsOf(standings),
  });
}

/** The fields of draft-ietf-httpapi-ratelimit-headers-10: the policies, and how much of each is left. */
function fieldsOf(standings: readonly Standing[]): Record<string, string> {
  if (standings.length === 0) return {};
  return {
    'ratelimit-policy': standings.map(({ name, quota, window }) => `"${name}";q=${quota};w=${window}`).join(', '),
    ratelimit: standings.map(({ name, remaining, resetS }) => `"${name}";r=${remaining};t=${resetS}`).join(', '),
  };
}

function told(response: Response, standings: readonly Standing[]): Response {
  const fields = Object.entries(fieldsOf(standings));
  if (fields.length === 0) return response;
  const headers = new Headers(response.headers);
  // Of an answer by way of `/mcp` the server's own standing is there already: fields are lists.
  for (const [name, value] of fields) headers.append(name, value);
  return new Response(response.body, { status: response.status, headers });
}
