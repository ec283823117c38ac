/**
 * Owns discovery in the stateless era: the stored copy that answers in a server's place, and what is done with a live
 * answer before its client sees it.
 *
 * A list of tools tells the lane which arguments travel in headers, whether it comes from the server or from a copy. Hints
 * about caching are the edge's to complete, since it is the edge that keeps copies (`hints.ts`).
 */
import { parseExactly } from '../../shared/exact-json.ts';
import type { JsonRpcMessage, JsonRpcRequest } from '../../shared/jsonrpc.ts';
import { type Known, lookUp, responseText } from '../discovery/answer.ts';
import { hinted } from '../discovery/hints.ts';
import { isDiscovery, questionOf } from '../discovery/question.ts';
import { laneView, type View } from '../discovery/view.ts';
import type { Env } from '../env.ts';
import { type LaneHolder, laneOf } from '../lane/object.ts';
import { declaredIn } from './parameters.ts';

export interface Asked {
  readonly env: Env;
  readonly holder: LaneHolder;
  readonly request: JsonRpcRequest;
  readonly waitUntil: (promise: Promise<unknown>) => void;
}

export class Discovery {
  readonly #asked: Asked;
  readonly #known: Known | null;
  /** The copied result as its client is told it; null where there is none. */
  readonly #result: Readonly<Record<string, unknown>> | null;

  private constructor(asked: Asked, known: Known | null) {
    this.#asked = asked;
    this.#known = known;
    const copy = known?.copy;
    this.#result =
      copy && !copy.refused ? hinted(parseExactly(copy.text) as Record<string, unknown>, known.ageMs) : null;
  }

  /** Null for a request that is no discovery. Must be called before the server is asked. */
  static async of(asked: Asked): Promise<Discovery | null> {
    const { env, request, waitUntil } = asked;
    if (!isDiscovery(request.method)) return null;
    const question = questionOf(request);
    return new Discovery(asked, question && (await lookUp(env, await viewOf(asked), question, waitUntil)));
  }

  /** The response from the copy, as JSON text; null where there is none. */
  get copy(): string | null {
    const { id } = this.#asked.request;
    if (this.#result) return responseText(id, { text: JSON.stringify(this.#result), refused: false });
    return this.#known?.copy ? responseText(id, this.#known.copy) : null;
  }

  /** The copy is about to answer. `any`: whether the lane knows of parameters. */
  async useCopy(any: boolean): Promise<void> {
    if (this.#result) await this.#learn(this.#result, any);
  }

  /** The server has answered, and its client is about to be told. `own`: what it lists is its process's own affair. */
  async keep(answer: JsonRpcMessage, own: boolean, any: boolean): Promise<void> {
    if ('result' in answer) {
      if (!isComplete(answer.result)) return;
      await this.#learn(answer.result, any);
    }
    if (!own) this.#known?.keep(answer);
  }

  async #learn(result: Readonly<Record<string, unknown>>, any: boolean): Promise<void> {
    const { env, holder, request } = this.#asked;
    if (request.method !== 'tools/list') return;
    const tools = declaredIn(result);
    const news = any ? tools : tools.filter(({ parameters }) => parameters.length > 0);
    if (news.length > 0) await laneOf(env, holder.id).learn(news);
  }
}

/** A live answer as its client is told it. */
export function told(answer: JsonRpcMessage): JsonRpcMessage {
  if (!('result' in answer) || !isComplete(answer.result)) return answer;
  const result = hinted(answer.result);
  return result === answer.result ? answer : { ...answer, result };
}

/** Whose view of the server the sender of a request has. */
export async function viewOf({ holder, request }: Pick<Asked, 'holder' | 'request'>): Promise<View> {
  const meta = (request.params?._meta ?? {}) as Record<string, unknown>;
  return await laneView(holder, meta);
}

const isComplete = ({ resultType = 'complete' }: Readonly<Record<string, unknown>>): boolean =>
  resultType === 'complete';
