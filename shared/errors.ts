/**
 * Owns every expected failure of Moorage: its stable code, and the one table that maps it to HTTP and JSON-RPC.
 *
 * Invariants: a message tells its reader what to do next and holds no secret, no path of the host and no stack;
 * `data.code` is the contract (the numeric JSON-RPC code is only its coarse class).
 */

/** How a code travels. `http` is the status on its own; `jsonrpc` the error code in a JSON-RPC answer. */
interface Mapping {
  readonly http: number;
  readonly jsonrpc: number;
  /**
   * True where the failure belongs to one request of a healthy session: a JSON-RPC error with status 200, which
   * every client shows to its user. False where the HTTP exchange itself is refused.
   */
  readonly inBand: boolean;
}

const refused = (http: number, jsonrpc = -32000): Mapping => ({ http, jsonrpc, inBand: false });
const failed = (http: number, jsonrpc = -32000): Mapping => ({ http, jsonrpc, inBand: true });

/**
 * Stable codes. Numbers below -32099 are JSON-RPC 2.0's own; -32000 is "server error"; -32001 is what SDKs send for a
 * lost session; -32022 is how 2026-07-28 says which versions are served, read by clients of both eras.
 */
export const ERROR_CODES = {
  parse_error: refused(400, -32700),
  invalid_request: refused(400, -32600),
  invalid_params: failed(400, -32602),
  // Five with the numbers of 2026-07-28 (basic/index, "Error Codes"; streamable-http, "Server Validation").
  unsupported_protocol_version: refused(400, -32022),
  header_mismatch: refused(400, -32020),
  capability_required: refused(400, -32021),
  envelope_invalid: refused(400, -32602),
  method_not_found: refused(404, -32601),
  session_required: refused(400),
  session_not_found: refused(404, -32001),
  unknown_server: refused(404),
  not_found: refused(404),
  no_machine: refused(409),
  method_not_allowed: refused(405),
  not_acceptable: refused(406),
  body_too_large: refused(413),
  unsupported_media_type: refused(415),
  forbidden_origin: refused(403),
  // What the policy keeps from the caller: the server, or one thing of a server that it may use.
  forbidden_server: refused(403),
  forbidden: failed(403),
  // A tool is not what it was when its server was deployed, and nobody has accepted that.
  tool_changed: failed(403),
  // More than the caller may ask for at the moment; `data` says when it may ask again.
  rate_limited: refused(429),
  authentication_required: refused(401),
  insufficient_scope: refused(403),
  grant_invalid: refused(401),
  stream_conflict: refused(409),
  session_unknown: refused(409),
  route_stale: refused(409),
  stream_unknown: refused(404),
  overloaded: failed(503),
  origin_away: failed(503),
  // Something in front of the origin, such as Cloudflare Access, did not let the edge through.
  origin_refused: failed(502),
  edge_away: failed(503),
  issuer_away: refused(503),
  machine_failed: failed(503),
  secret_missing: failed(503),
  secrets_unusable: failed(503),
  server_failed: failed(502),
  outcome_unknown: failed(502),
  // The call was carried out, and its result is larger than its server may send.
  result_too_large: failed(502),
  request_timeout: failed(504),
  internal: failed(500, -32603),
} as const satisfies Record<string, Mapping>;

export type ErrorCode = keyof typeof ERROR_CODES;

/** JSON-safe detail that travels with an error. Never secrets, host paths or stacks. */
export type ErrorData = Readonly<Record<string, unknown>>;

/** An expected failure, as a value. Everything else that is thrown is a bug and is reported as `internal`. */
export class MoorageError extends Error {
  readonly code: ErrorCode;
  readonly data: ErrorData;

  constructor(code: ErrorCode, message: string, data: ErrorData = {}) {
    super(message);
    this.name = 'MoorageError';
    this.code = code;
    this.data = data;
  }
}

/** The error object of JSON-RPC 2.0 (section 5.1) for a failure. `data.code` repeats the stable code. */
export function toJsonRpcError(error: MoorageError): { code: number; message: string; data: Record<string, unknown> } {
  return { code: ERROR_CODES[error.code].jsonrpc, message: error.message, data: { ...error.data, code: error.code } };
}

/** The HTTP status with which a failure is answered when the exchange as a whole is refused. */
export function httpStatus(code: ErrorCode): number {
  return ERROR_CODES[code].http;
}

/** Whether a failure is answered in band (status 200 and a JSON-RPC error) when the request had an id. */
export function isInBand(code: ErrorCode): boolean {
  return ERROR_CODES[code].inBand;
}

/** Any thrown value as a `MoorageError`. An unexpected one becomes `internal`, its own text is not shown to callers. */
export function toMoorageError(thrown: unknown): MoorageError {
  if (thrown instanceof MoorageError) return thrown;
  return new MoorageError('internal', 'Something went wrong inside Moorage. The owner finds details in the log.');
}

/** Body of an error between edge and origin: `{ error: { code, message, data } }`. */
export interface ErrorBody {
  readonly error: { readonly code: ErrorCode; readonly message: string; readonly data: ErrorData };
}

export function toErrorBody(error: MoorageError): ErrorBody {
  return { error: { code: error.code, message: error.message, data: error.data } };
}

/**
 * Reads an error body received from the other half.
 * An unknown code or shape becomes `internal`: the far end of the tunnel is not trusted to choose our words.
 */
export function fromErrorBody(value: unknown): MoorageError {
  if (isErrorBody(value)) {
    const { error } = value;
    const data = error.data && typeof error.data === 'object' ? (error.data as ErrorData) : {};
    return new MoorageError(error.code, typeof error.message === 'string' ? error.message : error.code, data);
  }
  return new MoorageError('internal', 'The origin answered with an error that this edge does not know.');
}

/** Whether something received is an error of the other half. Its `message` and `data` are whatever was sent. */
export function isErrorBody(
  value: unknown,
): value is { error: { code: ErrorCode; message?: unknown; data?: unknown } } {
  const error = (value as { error?: { code?: unknown } } | null | undefined)?.error;
  return typeof error?.code === 'string' && Object.hasOwn(ERROR_CODES, error.code);
}
