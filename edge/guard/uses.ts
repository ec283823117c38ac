/**
 * Owns what a client's message is about, as far as the policy distinguishes it. Pure.
 *
 * What cannot be told for certain (a name that is no text: a lenient server may take `["delete_page"]` for one) counts as
 * `other`, which only a caller without restrictions may do.
 */
import { isRequest, isResponse, type JsonRpcMessage, type JsonRpcRequest } from '../../shared/jsonrpc.ts';
import type { Use } from '../../shared/policy.ts';
import { isRecord } from '../../shared/rev-2026-07-28.ts';

/** Requests that are about a server and nothing in particular. */
const OF_THE_SERVER =
  /^(?:initialize|ping|logging\/setLevel|server\/discover|(?:tools|prompts|resources|resources\/templates)\/list|tasks\/(?:get|list|result|cancel|update))$/;
/** Notifications that a client of some revision sends (2024-11-05 to 2026-07-28). */
const TOLD =
  /^notifications\/(?:initialized|cancelled|progress|roots\/list_changed|tasks\/status|elicitation\/complete)$/;

/** All of these must be allowed. */
export function usesOf(server: string, message: JsonRpcMessage): Use[] {
  const whole: Use = { kind: 'server', server };
  const other: Use = { kind: 'other', server };
  if (isResponse(message)) return [whole];
  if (!isRequest(message)) return [TOLD.test(message.method) ? whole : other];
  const { method, params = {} } = message;
  if (OF_THE_SERVER.test(method)) return [whole];
  if (method === 'subscriptions/listen') return [whole, ...listenedFor(server, params)];
  const { name, uri } = params;
  switch (method) {
    case 'tools/call':
      return typeof name === 'string' ? [{ kind: 'tool', server, name, arguments: params.arguments ?? {} }] : [other];
    case 'prompts/get':
      return typeof name === 'string' ? [{ kind: 'prompt', server, name }] : [other];
    case 'resources/read':
    case 'resources/subscribe':
    case 'resources/unsubscribe':
      return typeof uri === 'string' ? [{ kind: 'resource', server, name: uri }] : [other];
    case 'completion/complete':
      return [referred(server, message) ?? other];
    default:
      return [other];
  }
}

/** The resources of a `subscriptions/listen` (2026-07-28, "Subscriptions"). */
function listenedFor(server: string, { notifications }: Record<string, unknown>): Use[] {
  if (!isRecord(notifications) || notifications.resourceSubscriptions === undefined) return [];
  const uris: unknown = notifications.resourceSubscriptions;
  if (!Array.isArray(uris)) return [{ kind: 'other', server }];
  return uris.map((uri) =>
    typeof uri === 'string' ? { kind: 'resource', server, name: uri } : { kind: 'other', server },
  );
}

/** What is completed: an argument of a prompt, or of a template of resources. */
function referred(server: string, { params }: JsonRpcRequest): Use | undefined {
  const ref = params?.ref;
  if (!isRecord(ref)) return undefined;
  if (ref.type === 'ref/prompt' && typeof ref.name === 'string') return { kind: 'prompt', server, name: ref.name };
  return ref.type === 'ref/resource' && typeof ref.uri === 'string'
    ? { kind: 'resource', server, name: ref.uri }
    : undefined;
}
