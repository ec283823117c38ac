/**
 * Owns what changes in a message on its way between `/mcp` and one server: names, URIs and the ids of questions. Pure.
 *
 * Invariants: whatever is not named here passes as it came; translating in and out again gives the same message back.
 */
import type { JsonRpcMessage, JsonRpcRequest, JsonRpcResponse, RequestId } from '../../shared/jsonrpc.ts';
import type { UriNames } from './names.ts';

type Params = Readonly<Record<string, unknown>>;

const isRecord = (value: unknown): value is Readonly<Record<string, unknown>> =>
  value !== null && typeof value === 'object' && !Array.isArray(value);

/** What decides where a client's request goes. */
export type Target =
  | { readonly by: 'tool' | 'prompt'; readonly name: string }
  | { readonly by: 'uri'; readonly uri: string }
  | { readonly by: 'nothing' };

/** By which of its params a request finds its server. */
export function targetOf({ method, params }: JsonRpcRequest): Target {
  const { name, uri, ref } = params ?? {};
  if (method === 'tools/call' && typeof name === 'string') return { by: 'tool', name };
  if (method === 'prompts/get' && typeof name === 'string') return { by: 'prompt', name };
  if (/^resources\/(read|subscribe|unsubscribe)$/.test(method) && typeof uri === 'string') return { by: 'uri', uri };
  if (method === 'completion/complete' && isRecord(ref)) {
    if (ref.type === 'ref/prompt' && typeof ref.name === 'string') return { by: 'prompt', name: ref.name };
    if (ref.type === 'ref/resource' && typeof ref.uri === 'string') return { by: 'uri', uri: ref.uri };
  }
  return { by: 'nothing' };
}

/** A client's request as its server should see it. `known` is the tool's, prompt's or resource's name over there. */
export function toServer(request: JsonRpcRequest, known: string): JsonRpcRequest {
  const params: Params = request.params ?? {};
  if (request.method === 'completion/complete' && isRecord(params.ref)) {
    const key = params.ref.type === 'ref/prompt' ? 'name' : 'uri';
    return { ...request, params: { ...params, ref: { ...params.ref, [key]: known } } };
  }
  const key = typeof params.name === 'string' ? 'name' : 'uri';
  return { ...request, params: { ...params, [key]: known } };
}

/** A server's question gets its server's name into its id: the answer must find back. */
export function questionId(server: string, id: RequestId): string {
  return `${server}:${typeof id === 'number' ? 'n' : 's'}:${id}`;
}

/** An answer's id read back; undefined when no server asked under it. */
export function readQuestionId(id: RequestId | null): { server: string; id: RequestId } | undefined {
  const match = typeof id === 'string' ? /^([^:]+):([ns]):([\s\S]*)$/.exec(id) : null;
  if (!match?.[1] || match[3] === undefined) return undefined;
  return { server: match[1], id: match[2] === 'n' ? Number(match[3]) : match[3] };
}

/** A server's message as the client of `/mcp` should see it. `method` is that of the request being answered, if any. */
export function fromServer(server: string, message: JsonRpcMessage, uris: UriNames, method?: string): JsonRpcMessage {
  if ('method' in message) {
    const params: Params = message.params ?? {};
    if ('id' in message) return { ...message, id: questionId(server, message.id) };
    if (message.method === 'notifications/cancelled' && isId(params.requestId)) {
      return { ...message, params: { ...params, requestId: questionId(server, params.requestId) } };
    }
    if (message.method === 'notifications/resources/updated' && typeof params.uri === 'string') {
      return { ...message, params: { ...params, uri: uris.expose(server, params.uri) } };
    }
    return message;
  }
  return 'result' in message ? { ...message, result: exposeResult(server, message.result, uris, method) } : message;
}

/** URIs in results: contents of resources, and resources that a tool or prompt links or embeds. */
function exposeResult(
  server: string,
  result: Extract<JsonRpcResponse, { result: unknown }>['result'],
  uris: UriNames,
  method?: string,
): Record<string, unknown> {
  const withUri = (value: unknown): unknown =>
    isRecord(value) && typeof value.uri === 'string' ? { ...value, uri: uris.expose(server, value.uri) } : value;
  const block = (value: unknown): unknown => {
    if (!isRecord(value)) return value;
    if (value.type === 'resource_link') return withUri(value);
    return value.type === 'resource' ? { ...value, resource: withUri(value.resource) } : value;
  };
  if (method === 'resources/read' && Array.isArray(result.contents)) {
    return { ...result, contents: result.contents.map(withUri) };
  }
  if (method === 'tools/call' && Array.isArray(result.content)) {
    return { ...result, content: result.content.map(block) };
  }
  if (method === 'prompts/get' && Array.isArray(result.messages)) {
    const messages = result.messages.map((value: unknown) =>
      isRecord(value) ? { ...value, content: block(value.content) } : value,
    );
    return { ...result, messages };
  }
  return result;
}

const isId = (value: unknown): value is RequestId => typeof value === 'string' || typeof value === 'number';
