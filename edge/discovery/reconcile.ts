/**
 * Owns what follows when a process says that a list of its server changed: the process, which runs and has just spoken,
 * is asked what it lists now, and the Directory compares. So copies are right again before the next client asks, and
 * nothing is woken for it.
 *
 * Bounds: a few seconds, a few pages. A doubt that cannot be settled leaves no copy.
 */
import { parseExactly } from '../../shared/exact-json.ts';
import type { JsonRpcResponse, RequestId } from '../../shared/jsonrpc.ts';
import { ERA_HEADER, LISTS_HEADER, MAX_MESSAGE_BYTES, WAKE_HEADER } from '../../shared/origin-api.ts';
import { directoryOf } from '../directory/object.ts';
import type { Env } from '../env.ts';
import { outputOf } from '../guard/settings.ts';
import { postMessage } from '../origin/client.ts';
import { observed } from '../pins/pinning.ts';
import { readBounded } from '../read-message.ts';
import { isAnswer, messageOf, SseScanner } from '../sse.ts';
import { answerOf, type ListedPage } from './copies.ts';
import { type Kind, LISTS_OF, nextCursorOf } from './question.ts';
import type { View } from './view.ts';

const WITHIN_MS = 15_000;
const MAX_PAGES = 50;

/** How to reach the process of a session or lane. */
export interface Reach {
  readonly origin: string;
  readonly grant: string;
  /** `_meta` of a lane's requests (2026-07-28). */
  readonly envelope?: Readonly<Record<string, unknown>>;
}

/** Settles the doubt that began at `at`; with null there is none, and what cannot be asked leaves all as it is. Never throws. */
export async function reconcile(env: Env, view: View, kind: Kind, reach: Reach, at: number | null): Promise<void> {
  const late = new Promise<null>((resolve) => setTimeout(() => resolve(null), WITHIN_MS));
  const listed = await Promise.race([listedNow(env, kind, reach).catch(() => null), late]);
  try {
    if (kind === 'tools' && (outputOf(env, view.server).pins ?? 'off') !== 'off') {
      for (const { text, refused } of listed?.pages ?? []) {
        if (!refused) await observed(env, view.server, JSON.parse(text));
      }
    }
    await directoryOf(env).reconcile(view, kind, listed, at);
  } catch (thrown) {
    // The doubt stands, and ends the copies by itself.
    console.error('copies could not be reconciled', thrown);
  }
}

/** All pages of all lists of a kind, or null where the process cannot be asked. */
async function listedNow(env: Env, kind: Kind, reach: Reach): Promise<{ pages: ListedPage[]; own: boolean } | null> {
  const pages: ListedPage[] = [];
  let own = false;
  for (const method of LISTS_OF[kind]) {
    let cursor: string | null = null;
    for (let page = 0; page === 0 || cursor !== null; page++) {
      if (page >= MAX_PAGES) return null;
      const request = {
        jsonrpc: '2.0',
        id: `moorage-list-${page}`,
        method,
        params: {
          ...(cursor === null ? {} : { cursor }),
          ...(reach.envelope ? { _meta: reach.envelope } : {}),
        },
      } as const;
      const bytes = new TextEncoder().encode(JSON.stringify(request));
      const response = await postMessage(env, reach.origin, reach.grant, bytes, false, {
        headers: { [WAKE_HEADER]: 'no', ...(reach.envelope ? { [ERA_HEADER]: 'modern' } : {}) },
      });
      own ||= response.headers.get(LISTS_HEADER) === 'changed';
      const answer = await answerIn(response, request.id);
      const listed = answer && answerOf(answer, method);
      if (!answer || !listed) return null;
      pages.push({ method, cursor, ...listed });
      cursor = 'result' in answer ? nextCursorOf(answer.result) : null;
    }
  }
  return { pages, own };
}

/** The response to request `id` in an origin's answer, JSON or a stream; undefined when there is none. */
export async function answerIn(response: Response, id: RequestId): Promise<JsonRpcResponse | undefined> {
  const bytes = await readBounded(response, MAX_MESSAGE_BYTES);
  if (!response.headers.get('content-type')?.startsWith('text/event-stream')) {
    return parseExactly(new TextDecoder().decode(bytes)) as JsonRpcResponse;
  }
  const event = new SseScanner().push(bytes).find((passed) => isAnswer(passed, id));
  return event && (messageOf(event) as JsonRpcResponse | undefined);
}
