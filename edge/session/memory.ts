/** Owns which messages change what a server's process holds for a session, beyond the call itself. Pure. */
import { isRequest, type JsonRpcMessage, type JsonRpcRequest } from '../../shared/jsonrpc.ts';
import type { Memory, Restore } from './session.ts';

const MAX_URI_LENGTH = 2048;

/** What must be remembered of a message, or null. Malformed params are the server's to refuse. */
export function memoryOf(message: JsonRpcMessage): Memory | null {
  if (!isRequest(message)) return null;
  const { level, uri } = message.params ?? {};
  if (message.method === 'logging/setLevel') {
    return typeof level === 'string' && level.length <= 16 ? { type: 'log-level', level } : null;
  }
  if (typeof uri !== 'string' || uri.length > MAX_URI_LENGTH) return null;
  if (message.method === 'resources/subscribe') return { type: 'subscribe', uri };
  if (message.method === 'resources/unsubscribe') return { type: 'unsubscribe', uri };
  return null;
}

/** The initialize of a session, as it is repeated for another process. `prefix` keeps its id apart from the client's. */
export function initializeOf(restore: Restore, prefix: string): JsonRpcRequest {
  const params = JSON.parse(restore.initialize) as Record<string, unknown>;
  return { jsonrpc: '2.0', id: `${prefix}-initialize`, method: 'initialize', params };
}

/** The requests that bring another process to where the session stands, to be sent after its initialize. */
export function restoringRequests(restore: Restore, prefix: string): JsonRpcRequest[] {
  const level = restore.logLevel === null ? [] : [{ method: 'logging/setLevel', params: { level: restore.logLevel } }];
  const subscriptions = restore.subscriptions.map((uri) => ({ method: 'resources/subscribe', params: { uri } }));
  return [...level, ...subscriptions].map((request, n) => ({ jsonrpc: '2.0', id: `${prefix}-${n}`, ...request }));
}
