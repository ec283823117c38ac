/**
 * Owns which era a message belongs to, and what a message of the stateless era (2026-07-28) must fulfil before anybody
 * behind the edge sees it. Pure.
 *
 * The body decides: a claim in `_meta` is judged, never ignored; `initialize` without one opens a session. Only
 * where a body says nothing does the version header decide. Checks come in a fixed order, so that a request with several
 * faults always gets the same answer: the claim, its agreement with the headers, the rest of the envelope, version, method.
 */
import { MoorageError } from '../../shared/errors.ts';
import { isRequest, isResponse, type JsonRpcMessage, type JsonRpcRequest } from '../../shared/jsonrpc.ts';
import {
  type HeaderReader,
  headerClaimsModern,
  headerMismatch,
  REVISION_HEADER,
} from '../../shared/mirrored-headers.ts';
import {
  claimsModern,
  type Envelope,
  MODERN_REVISIONS,
  methodNotFound,
  parseEnvelope,
  REMOVED_METHODS,
  unsupportedRevision,
} from '../../shared/rev-2026-07-28.ts';

/** Whether a message is one of the stateless era. */
export function isModern(message: JsonRpcMessage, header: HeaderReader): boolean {
  if (isResponse(message)) return headerClaimsModern(header);
  if (claimsModern(message.params)) return true;
  // The method alone tells the era: of one, initialize is all the negotiation; of the other, nothing came before it.
  if (message.method === 'initialize') return false;
  if (message.method === 'server/discover') return true;
  return headerClaimsModern(header);
}

/** A request that may be served, with what it says about its sender. */
export interface ModernRequest {
  readonly request: JsonRpcRequest;
  readonly envelope: Envelope;
}

/**
 * Judges a message of the stateless era. Nothing comes back for a notification, which has no envelope to be judged.
 * @throws MoorageError `invalid_request`, `header_mismatch`, `envelope_invalid`, `unsupported_protocol_version`,
 * `method_not_found`.
 */
export function checkModern(message: JsonRpcMessage, header: HeaderReader): ModernRequest | undefined {
  if (isResponse(message)) {
    throw new MoorageError('invalid_request', 'Clients of 2026-07-28 send no responses: answers travel in a retry.');
  }
  if (!isRequest(message)) {
    const revision = header(REVISION_HEADER)?.trim();
    if (revision !== undefined && !MODERN_REVISIONS.includes(revision)) throw unsupportedRevision(revision);
    return undefined;
  }
  const mismatch = claimsModern(message.params) ? headerMismatch(message, header) : undefined;
  if (mismatch) throw mismatch;
  const envelope = parseEnvelope(message.params);
  if (REMOVED_METHODS.has(message.method)) throw methodNotFound(message.method);
  return { request: message, envelope };
}
