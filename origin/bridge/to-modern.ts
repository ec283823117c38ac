/**
 * Owns what a server with sessions says, in the form of 2026-07-28: results, errors, discovery, and its questions to the
 * client. Pure. Unknown members pass.
 */
import type { JsonRpcFailure, JsonRpcRequest } from '../../shared/jsonrpc.ts';
import {
  capabilityRequired,
  isRecord,
  LOG_LEVELS,
  type LogLevel,
  META,
  MODERN_REVISIONS,
  metaOf,
} from '../../shared/rev-2026-07-28.ts';

type Json = Readonly<Record<string, unknown>>;

/**
 * Says nothing about freshness, as the server did not: immediately stale, for this caller alone (utilities/caching).
 * Answers to discovery go without: that the server said nothing decides how the edge keeps them, and the edge completes them.
 */
const NO_HINT = { ttlMs: 0, cacheScope: 'private' } as const;

/** A complete result. `serverInfo` is what `initialize` gave. */
export function modernResult(method: string, result: Json, serverInfo: unknown): Record<string, unknown> {
  const meta = {
    ...(serverInfo === undefined ? {} : { [META.serverInfo]: serverInfo }),
    ...metaOf({ _meta: result._meta }),
  };
  return {
    ...(method === 'resources/read' ? NO_HINT : {}),
    ...result,
    resultType: 'complete',
    ...(Object.keys(meta).length > 0 ? { _meta: meta } : {}),
  };
}

/** `server/discover` from a stored InitializeResult. Experimental tasks have no counterpart in this revision. */
export function discoverResult(initialized: Json): Record<string, unknown> {
  const { protocolVersion: _revision, serverInfo, capabilities: all, ...rest } = initialized;
  const { tasks: _tasks, ...capabilities } = isRecord(all) ? all : {};
  return modernResult('server/discover', { ...rest, supportedVersions: MODERN_REVISIONS, capabilities }, serverInfo);
}

const RESOURCE_NOT_FOUND = -32002;
/** Asks the client to visit addresses before it tries again (2025-11-25). */
export const URL_ELICITATION_REQUIRED = -32042;

/**
 * An error in the vocabulary of the revision (basic/index, "Error Codes"): -32002 became -32602, and no code of the
 * reserved range may come from a server that cannot mean it.
 */
export function modernError(error: JsonRpcFailure['error']): JsonRpcFailure['error'] {
  if (error.code === RESOURCE_NOT_FOUND) return { ...error, code: -32602 };
  const isReserved = error.code <= -32020 && error.code >= -32099;
  return isReserved ? { ...error, code: -32603 } : error;
}

/** A question of a server as one of `inputRequests`. Members about tasks and progress say nothing to the client. */
export function inputRequestOf({ method, params }: JsonRpcRequest): Record<string, unknown> {
  if (!params) return { method };
  const { _meta, task: _task, elicitationId: _id, ...rest } = params;
  const { progressToken: _token, ...meta } = metaOf(params) ?? {};
  return { method, params: Object.keys(meta).length > 0 ? { ...rest, _meta: meta } : rest };
}

/** What the client must have declared to be asked this; nothing for what it cannot be asked at all. */
export function neededFor({ method, params }: JsonRpcRequest): Record<string, Json> | undefined {
  switch (method) {
    case 'roots/list':
      return { roots: {} };
    case 'sampling/createMessage':
      return { sampling: params?.tools === undefined && params?.toolChoice === undefined ? {} : { tools: {} } };
    case 'elicitation/create':
      return { elicitation: params?.mode === 'url' ? { url: {} } : { form: {} } };
    default:
      return undefined;
  }
}

/** Whether `declared` has what is needed. `elicitation: {}` means forms (client/elicitation, "Capabilities"). */
export function isDeclared(needed: Readonly<Record<string, Json>>, declared: Json): boolean {
  return Object.entries(needed).every(([name, members]) => {
    const has = declared[name];
    if (!isRecord(has)) return false;
    return Object.keys(members).every(
      (member) => has[member] !== undefined || (member === 'form' && Object.keys(has).length === 0),
    );
  });
}

/** The questions in an error -32042, where it carries some. */
export function urlQuestions(error: JsonRpcFailure['error']): Record<string, unknown>[] {
  const listed = isRecord(error.data) ? error.data.elicitations : undefined;
  if (error.code !== URL_ELICITATION_REQUIRED || !Array.isArray(listed)) return [];
  return listed
    .filter((each): each is Record<string, unknown> => isRecord(each) && typeof each.url === 'string')
    .map(({ elicitationId: _id, ...params }) => ({ method: 'elicitation/create', params: { ...params, mode: 'url' } }));
}

export const URL_NEEDED = capabilityRequired({ elicitation: { url: {} } });

/** Client capabilities that a server with sessions may be told. Experimental tasks have no counterpart in this revision. */
export function legacyCapabilities({ tasks: _tasks, ...declared }: Json): Record<string, unknown> {
  return declared;
}

/** A request without what only this era has. */
export function legacyRequest(message: JsonRpcRequest): JsonRpcRequest {
  const { _meta, inputResponses: _responses, requestState: _state, ...params } = message.params ?? {};
  const {
    [META.revision]: _revision,
    [META.clientInfo]: _info,
    [META.clientCapabilities]: _capabilities,
    [META.logLevel]: _level,
    ...meta
  } = isRecord(_meta) ? _meta : {};
  return { ...message, params: Object.keys(meta).length > 0 ? { ...params, _meta: meta } : params };
}

/** Whether a log line is at least as severe as what was asked for. */
export function isAtLeast(level: unknown, wanted: LogLevel): boolean {
  return LOG_LEVELS.indexOf(level as LogLevel) >= LOG_LEVELS.indexOf(wanted);
}
