/**
 * Owns what the parameters of a client's request must be whoever it is for. A server that reads its stdin by the specification's
 * schema drops what does not fit it and says nothing: the request would wait for ever.
 */
import { isProgressToken, type JsonRpcRequest } from '../shared/jsonrpc.ts';
import { isRecord } from '../shared/rev-2026-07-28.ts';

const WITH_ARGUMENTS: readonly string[] = ['tools/call', 'prompts/get'];

/** Why a request does not fit (2025-11-25, "RequestParams", "CallToolRequestParams", "GetPromptRequestParams"), or nothing. */
export function misfit({ method, params }: JsonRpcRequest): string | undefined {
  const { _meta: meta, arguments: args } = params ?? {};
  if (meta !== undefined && !isRecord(meta)) return '"params._meta" must be an object.';
  const token = meta?.progressToken;
  if (token !== undefined && !isProgressToken(token))
    return '"params._meta.progressToken" must be a string or a number.';
  if (args !== undefined && WITH_ARGUMENTS.includes(method) && !isRecord(args))
    return '"params.arguments" must be an object.';
  return undefined;
}
