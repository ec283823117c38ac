/** Owns what a failed exchange with a server over HTTP means. Pure. No text of the server and no header is repeated. */
import { SdkHttpError, UnauthorizedError } from '@modelcontextprotocol/client';
import { MoorageError } from '../../shared/errors.ts';
import { isResponse, type JsonRpcMessage, type JsonRpcResponse, parseMessage } from '../../shared/jsonrpc.ts';

/** Codes by which a server shows that it speaks 2026-07-28 (basic/transports/streamable-http, "Backward Compatibility"). */
const MODERN_CODES: ReadonlySet<number> = new Set([-32020, -32021, -32022]);
/** Failures before anything was sent. */
const UNSENT: ReadonlySet<string> = new Set([
  'ECONNREFUSED',
  'ENOTFOUND',
  'EAI_AGAIN',
  'EHOSTUNREACH',
  'ENETUNREACH',
  'ETIMEDOUT',
]);
/** Refusals that say nothing about the transport. */
const NO_VERDICT: ReadonlySet<number> = new Set([401, 403, 407, 408, 429]);

/** The JSON-RPC error that the body of a refusal holds, as the answer to request `id`. */
export function rpcErrorIn(error: unknown, id: number): JsonRpcResponse | undefined {
  const text = error instanceof SdkHttpError ? error.data.text : undefined;
  if (typeof text !== 'string') return undefined;
  let message: JsonRpcMessage;
  try {
    message = parseMessage(JSON.parse(text));
  } catch {
    return undefined;
  }
  if (!isResponse(message) || !('error' in message) || (message.id !== null && message.id !== id)) return undefined;
  return { ...message, id };
}

/** Whether the refusal of an `initialize` means: this server has only HTTP+SSE. */
export function speaksOnlySse(error: unknown, answer: JsonRpcResponse | undefined): boolean {
  if (!(error instanceof SdkHttpError) || error.status < 400 || error.status > 499) return false;
  if (NO_VERDICT.has(error.status)) return false;
  const code = answer && 'error' in answer ? answer.error.code : undefined;
  return code === undefined || !(MODERN_CODES.has(code) || code === -32601);
}

/** What the caller is told. */
export function failureOf(server: string, error: unknown): MoorageError {
  const status = statusOf(error);
  if (status === 401 || status === 403) {
    return new MoorageError(
      'server_failed',
      `The server "${server}" refuses this router (HTTP ${status}). Its owner corrects "headers" in the configuration.`,
      { status },
    );
  }
  if (status !== undefined) {
    return new MoorageError('server_failed', `The server "${server}" answered with HTTP status ${status}.`, { status });
  }
  const code = codeOf(error);
  if (code !== undefined && UNSENT.has(code)) {
    return new MoorageError(
      'server_failed',
      `The server "${server}" cannot be reached (${code}). Its owner checks that it runs and that "url" is right.`,
      { cause: code },
    );
  }
  return new MoorageError(
    'outcome_unknown',
    `The exchange with server "${server}" failed${code === undefined ? '' : ` (${code})`}. Outcome unknown: check before you repeat it.`,
    { cause: code ?? 'exchange_failed', retryable: false },
  );
}

function statusOf(error: unknown): number | undefined {
  if (error instanceof SdkHttpError) return error.status;
  if (error instanceof UnauthorizedError) return 401;
  // The SDK's error for HTTP+SSE carries the status as its code.
  const code = typeof error === 'object' && error !== null && 'code' in error ? error.code : undefined;
  return typeof code === 'number' && code >= 100 && code <= 599 ? code : undefined;
}

function codeOf(error: unknown): string | undefined {
  for (let at = error, depth = 0; typeof at === 'object' && at !== null && depth < 4; depth++) {
    if ('code' in at && typeof at.code === 'string' && /^[A-Z_]{2,40}$/.test(at.code)) return at.code;
    at = 'cause' in at ? at.cause : undefined;
  }
  return undefined;
}
