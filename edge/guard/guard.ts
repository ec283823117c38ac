/**
 * Owns what stands between every client and every server, whatever the era, the transport and the runtime: limits, the
 * policy, and what servers may say.
 * `/<server>/mcp` asks here for each message, and all other ways in (`/mcp`, batches, HTTP+SSE) lead through it.
 *
 * Invariant: a refusal is decided before anything is looked up, so it is the same whether or not a thing exists.
 */
import { MoorageError } from '../../shared/errors.ts';
import { isRequest, type JsonRpcMessage } from '../../shared/jsonrpc.ts';
import { decide, isUnrestricted, type Use } from '../../shared/policy.ts';
import type { Principal } from '../../shared/principal.ts';
import { coversServer } from '../../shared/scopes.ts';
import type { Env } from '../env.ts';
import { type Counted, limited } from '../limits/limit.ts';
import type { Exchange } from '../mcp.ts';
import { checkPin, pinning } from '../pins/pinning.ts';
import { unknownServer } from '../session/refusals.ts';
import { bounded } from './bounded.ts';
import { cleaning } from './clean-message.ts';
import { type Rewriting, rewritten } from './rewrite.ts';
import { accessOf, outputOf } from './settings.ts';
import { privately, showing } from './shown.ts';
import { usesOf } from './uses.ts';

type Guarded = Pick<Exchange, 'env' | 'server' | 'principal'>;
type Served = Pick<Exchange, 'env' | 'server' | 'principal' | 'request' | 'waitUntil' | 'counted' | 'follows'>;

/** Serves a message if its sender may, and shows of the answer what it may see. @throws MoorageError, also those of `serve`. */
export async function guarded(
  exchange: Served,
  message: JsonRpcMessage,
  serve: () => Promise<Response>,
): Promise<Response> {
  const refusal = refusalOf(() => {
    for (const use of usesOf(exchange.server, message)) check(exchange, use);
  });
  return await limited(countedAs(exchange, refusal), message, async () => {
    if (refusal) throw refusal;
    const warning = await checkPin(exchange, message);
    return await shown(exchange, serve, isRequest(message) ? message.method : undefined, warning);
  });
}

/** The same for a stream that a client opens. */
export async function guardedStream(exchange: Served, serve: () => Promise<Response>): Promise<Response> {
  const refusal = refusalOf(() => checkServer(exchange));
  return await limited(countedAs(exchange, refusal), null, async () => {
    if (refusal) throw refusal;
    return await shown(exchange, serve, undefined);
  });
}

/** What is refused counts for its caller, not for the server, which never gets it: whoever may not use one uses none of it up. */
const countedAs = (exchange: Served, refusal: MoorageError | undefined): Counted =>
  refusal || exchange.follows ? { ...exchange, server: undefined } : exchange;

function refusalOf(checks: () => void): MoorageError | undefined {
  try {
    checks();
    return undefined;
  } catch (thrown) {
    if (thrown instanceof MoorageError) return thrown;
    throw thrown;
  }
}

/** @throws MoorageError `forbidden_server` when the caller may use nothing of the server. */
export function checkServer(exchange: Guarded): void {
  check(exchange, { kind: 'server', server: exchange.server });
}

/** Those of `servers` that the principal may use something of. */
export function visible(env: Env, principal: Principal, servers: readonly string[]): string[] {
  return servers.filter((server) => reaches({ env, principal, server }));
}

/** Whether the credential is for the server at all (`/mcp` is for every server that it covers), and the policy agrees. */
function reaches({ env, principal, server }: Guarded): boolean {
  return coversServer(principal.scopes, server) && decide(accessOf(env), principal, { kind: 'server', server }).allow;
}

function check(exchange: Guarded, use: Use): void {
  const { env, principal, server } = exchange;
  if (!reaches(exchange)) {
    throw new MoorageError(
      'forbidden_server',
      `You may not use a server "${server.slice(0, 100)}" here. Whoever runs this router decides it.`,
    );
  }
  if (decide(accessOf(env), principal, use).allow) return;
  const what = 'name' in use ? `the ${use.kind} "${use.name.slice(0, 200)}"` : 'this method';
  const how = use.kind === 'tool' ? ', or not with these arguments' : '';
  throw new MoorageError(
    'forbidden',
    `You may not use ${what} of "${server}"${how}. Use what its lists show, or ask whoever runs this router.`,
  );
}

async function shown(
  exchange: Guarded,
  serve: () => Promise<Response>,
  method: string | undefined,
  warning?: Rewriting,
): Promise<Response> {
  let response: Response;
  try {
    response = await serve();
  } catch (thrown) {
    throw withoutHidden(exchange, thrown);
  }
  return await rewritten(response, [...rewritingsOf(exchange, method), ...(warning ? [warning] : [])]);
}

/** Whether an answer may be a list of tools: of a stream that is taken up again nobody knows. */
const mayList = (method: string | undefined): boolean => method === undefined || method === 'tools/list';

function rewritingsOf({ env, principal, server }: Guarded, method: string | undefined): Rewriting[] {
  const { output = 'off', maxResultBytes, pins = 'off' } = outputOf(env, server);
  const access = accessOf(env);
  const restricted = access !== undefined && !isUnrestricted(access, principal, server);
  return [
    ...(maxResultBytes === undefined ? [] : [bounded(maxResultBytes)]),
    ...(pins === 'off' || !mayList(method) ? [] : [pinning(env, server, pins)]),
    ...(restricted ? [showing(access, principal, server, method)] : []),
    ...(access === undefined ? [] : [privately]),
    ...(output === 'off' ? [] : [cleaning(output)]),
  ];
}

/** A misspelt name is answered with those that exist: as far as the caller may know them. */
function withoutHidden({ env, principal, server }: Guarded, thrown: unknown): unknown {
  if (!(thrown instanceof MoorageError) || thrown.code !== 'unknown_server') return thrown;
  const { servers } = thrown.data;
  return unknownServer(server, visible(env, principal, Array.isArray(servers) ? servers.map(String) : []));
}
