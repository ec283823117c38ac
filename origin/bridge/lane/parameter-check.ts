/**
 * Owns the agreement of `Mcp-Param-*` headers with a tool's arguments, in the place of servers that never see a header
 * (2026-07-28, basic/transports/streamable-http, "Server Behavior for Custom Headers").
 *
 * What tools ask for comes from `tools/list`, asked once per deployment and again before a tool that is not known, or a
 * call that does not agree, is judged by it. A server whose list cannot be had has no such tools.
 */
import type { MoorageError } from '../../../shared/errors.ts';
import type { JsonRpcRequest, JsonRpcResponse } from '../../../shared/jsonrpc.ts';
import { ParameterHeaders } from '../../../shared/parameter-headers.ts';
import type { Arrival } from '../lanes.ts';

/** Asks the server in the client's name. */
export type AskServer = (message: JsonRpcRequest, signal: AbortSignal) => Promise<JsonRpcResponse>;

const LIST_WITHIN_MS = 5_000;
const MAX_PAGES = 20;
/** A list younger than this is not asked for again, in milliseconds. */
const FRESH_MS = 10_000;

interface Learned {
  readonly headers: ParameterHeaders;
  readonly at: number;
}

export class ParameterCheck {
  readonly #now: () => number;
  readonly #learned = new Map<string, Promise<Learned>>();

  constructor(now: () => number = Date.now) {
    this.#now = now;
  }

  /** Why the headers of a request do not agree with it, or nothing when they do. */
  async mismatch({ definition, message, headers }: Arrival, ask: AskServer): Promise<MoorageError | undefined> {
    if (message.method !== 'tools/call') return undefined;
    const judge = ({ headers: known }: Learned) => known.mismatch(message, (name) => headers[name]);
    const learned = await this.#list(definition.deployment, message, ask, Number.POSITIVE_INFINITY);
    if (learned.headers.knows(message) && !judge(learned)) return undefined;
    return judge(await this.#list(definition.deployment, message, ask, FRESH_MS));
  }

  async #list(deployment: string, call: JsonRpcRequest, ask: AskServer, maxAge: number): Promise<Learned> {
    const known = this.#learned.get(deployment);
    if (known && this.#now() - (await known).at <= maxAge) return await known;
    const asking = this.#ask(call, ask);
    this.#learned.set(deployment, asking);
    return await asking;
  }

  async #ask({ params }: JsonRpcRequest, ask: AskServer): Promise<Learned> {
    const headers = new ParameterHeaders();
    const signal = AbortSignal.timeout(LIST_WITHIN_MS);
    const late = new Promise<undefined>((resolve) => signal.addEventListener('abort', () => resolve(undefined)));
    let cursor: unknown;
    for (let page = 0; page < MAX_PAGES; page++) {
      const list: JsonRpcRequest = {
        jsonrpc: '2.0',
        id: `parameters-${page}`,
        method: 'tools/list',
        params: { ...(cursor === undefined ? {} : { cursor }), ...envelopeOnly(params) },
      };
      const answer = await Promise.race([ask(list, signal).catch(() => undefined), late]);
      if (!answer || 'error' in answer) break;
      headers.learn(answer.result);
      cursor = answer.result.nextCursor;
      if (typeof cursor !== 'string') break;
    }
    return { headers, at: this.#now() };
  }
}

/** The caller's `_meta` without what belongs to its call alone. */
function envelopeOnly(params: JsonRpcRequest['params']): { _meta: unknown } {
  const { progressToken: _token, ...meta } = (params?._meta ?? {}) as Record<string, unknown>;
  return { _meta: meta };
}
