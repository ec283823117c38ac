/** Requests of the stateless era by hand: what is on the wire is what the tests are about. */
import type { JsonRpcRequest } from '../../shared/jsonrpc.ts';
import { encodeHeaderValue, nameOf } from '../../shared/mirrored-headers.ts';

export const REVISION = '2026-07-28';

export interface ModernOptions {
  readonly id?: string | number;
  readonly capabilities?: Record<string, unknown>;
  readonly meta?: Record<string, unknown>;
  readonly headers?: Record<string, string>;
  readonly signal?: AbortSignal;
}

/** A complete request with its envelope. */
export function envelope(method: string, params: Record<string, unknown>, options: ModernOptions = {}): JsonRpcRequest {
  const _meta = {
    'io.modelcontextprotocol/protocolVersion': REVISION,
    'io.modelcontextprotocol/clientCapabilities': options.capabilities ?? {},
    'io.modelcontextprotocol/clientInfo': { name: 'wire', version: '1' },
    ...options.meta,
  };
  return { jsonrpc: '2.0', id: options.id ?? 1, method, params: { ...params, _meta } };
}

/** Posts a request with the headers that repeat it. */
export function postModern(
  url: string,
  method: string,
  params: Record<string, unknown> = {},
  options: ModernOptions = {},
): Promise<Response> {
  const request = envelope(method, params, options);
  const name = nameOf(request);
  return fetch(url, {
    method: 'POST',
    headers: {
      accept: 'application/json, text/event-stream',
      'content-type': 'application/json',
      'mcp-protocol-version': REVISION,
      'mcp-method': method,
      ...(name !== undefined && { 'mcp-name': encodeHeaderValue(name) }),
      ...options.headers,
    },
    body: JSON.stringify(request),
    ...(options.signal && { signal: options.signal }),
  });
}
