/**
 * Owns what every MCP endpoint, a server's own and `/mcp`, makes of HTTP (Streamable HTTP): its methods, batches, the headers
 * of a session, and that every failure is an answer.
 */
import { z } from 'zod';
import { MoorageError } from '../shared/errors.ts';
import { parseExactly } from '../shared/exact-json.ts';
import { isRequest, type JsonRpcRequest, parseMessage, type RequestId } from '../shared/jsonrpc.ts';
import { headerClaimsModern } from '../shared/mirrored-headers.ts';
import { isLegacyRevision, LEGACY_REVISIONS } from '../shared/revision.ts';
import { type Env, sessionKeyOf } from './env.ts';
import { accepts, type ReadMessage, readPost } from './read-message.ts';
import { misfit } from './request-shape.ts';
import { respondError } from './respond.ts';
import { isSessionId } from './session/id.ts';
import { sessionNotFound } from './session/refusals.ts';
import { serveBatch } from './transports/batch.ts';

export const SESSION_HEADER = 'Mcp-Session-Id';
export const VERSION_HEADER = 'mcp-protocol-version';
/** An initialize is kept as long as its session: larger ones are refused. */
const MAX_INITIALIZE_BYTES = 256 * 1024;

export interface Endpoint {
  /** Messages are written anew for whom they are for, so their numbers are kept as they were written. */
  readonly exact?: boolean;
  /** One message. */
  message(read: ReadMessage): Promise<Response>;
  /** The stream of a session. */
  open(): Promise<Response>;
  /** The end of a session. */
  end(): Promise<Response>;
  /** A message of a batch, as if it had come alone; every failure is an answer. */
  alone(request: Request): Promise<Response>;
  /** Told of every failure before it is answered. */
  failed?(thrown: unknown): void;
}

/** Serves one request; every failure is an answer. */
export async function serveEndpoint(
  request: Request,
  endpoint: Endpoint,
  waitUntil: (promise: Promise<unknown>) => void,
): Promise<Response> {
  let id: RequestId | null = null;
  try {
    if (request.method !== 'POST' && headerClaimsModern((name) => request.headers.get(name))) {
      throw new MoorageError('method_not_allowed', 'This revision has no sessions and no streams to open: POST.', {
        allow: 'POST, OPTIONS',
      });
    }
    switch (request.method) {
      case 'POST': {
        const { value, text, bytes } = await readPost(request, endpoint.exact ? parseExactly : undefined);
        if (Array.isArray(value)) {
          const values = endpoint.exact ? value : (parseExactly(text) as unknown[]);
          return await serveBatch(request, values, (alone) => endpoint.alone(alone), waitUntil);
        }
        const message = parseMessage(value);
        if (isRequest(message)) {
          id = message.id;
          const why = misfit(message);
          if (why) throw new MoorageError('invalid_params', why);
        }
        return await endpoint.message({ message, bytes });
      }
      case 'GET':
        if (!accepts(request.headers.get('accept'), ['text/event-stream'])) {
          throw new MoorageError(
            'not_acceptable',
            'The stream of a session is text/event-stream: Accept must list it.',
          );
        }
        return await endpoint.open();
      case 'DELETE':
        return await endpoint.end();
      default:
        throw new MoorageError('method_not_allowed', 'An MCP endpoint takes POST, GET and DELETE.', {
          allow: 'POST, GET, DELETE, OPTIONS',
        });
    }
  } catch (thrown) {
    endpoint.failed?.(thrown);
    return respondError(thrown, id);
  }
}

/**
 * The session that a request names. `of` is what its id was minted for.
 * @throws MoorageError `session_required`, `method_not_allowed`; `session_not_found` for ids never minted for this.
 */
export async function sessionIdOf(env: Env, request: Request, of: string): Promise<string> {
  const id = request.headers.get(SESSION_HEADER);
  if (id === null && request.method !== 'POST') {
    // Not 400 and not 404: clients that look for a stream before they initialize give up, or take it for a lost session.
    throw new MoorageError('method_not_allowed', `Without ${SESSION_HEADER} this endpoint takes POST only.`, {
      allow: 'POST, OPTIONS',
    });
  }
  if (id === null) {
    throw new MoorageError('session_required', `Send initialize first, then its ${SESSION_HEADER} with every request.`);
  }
  if (!(await isSessionId(await sessionKeyOf(env), of, id))) throw sessionNotFound();
  checkVersion(request);
  return id;
}

/** `MCP-Protocol-Version` of a request within a session. Absent means 2025-03-26, which is served (2025-06-18, "Transports"). */
function checkVersion(request: Request): void {
  const version = request.headers.get(VERSION_HEADER);
  if (version === null || isLegacyRevision(version)) return;
  const requested = version.slice(0, 64);
  throw new MoorageError(
    'unsupported_protocol_version',
    `Protocol version ${requested} is not served here. Initialize with one of ${LEGACY_REVISIONS.join(', ')}.`,
    { supported: LEGACY_REVISIONS, requested },
  );
}

const initializeParams = z.looseObject({
  protocolVersion: z.string().min(1).max(64),
  capabilities: z.record(z.string(), z.unknown()),
  clientInfo: z.looseObject({ name: z.string(), version: z.string() }),
});

/** The params of an initialize of so many bytes. @throws MoorageError `invalid_params`, `body_too_large`. */
export function readInitialize({ params }: JsonRpcRequest, bytes: number): z.infer<typeof initializeParams> {
  const parsed = initializeParams.safeParse(params);
  if (!parsed.success) {
    const issue = parsed.error.issues[0];
    const where = ['params', ...(issue?.path ?? [])].join('.');
    throw new MoorageError('invalid_params', `initialize is malformed at "${where}": ${issue?.message}.`);
  }
  if (bytes > MAX_INITIALIZE_BYTES) {
    throw new MoorageError('body_too_large', `An initialize may have ${MAX_INITIALIZE_BYTES} bytes.`);
  }
  return parsed.data;
}
