/**
 * Owns a `subscriptions/listen` stream that the edge itself opens (2026-07-28, basic/patterns/subscriptions): the acknowledgement
 * first, then what the Directory knows of lists, and what is said by those whom its opener follows; its end in order.
 *
 * Bound: `MAX_WAITING` messages for a client that does not read; what comes beyond them is dropped.
 */
import { MoorageError } from '../../shared/errors.ts';
import { failure, type JsonRpcMessage, type JsonRpcResponse, type RequestId } from '../../shared/jsonrpc.ts';
import { KEEP_ALIVE_MS } from '../../shared/origin-api.ts';
import { META } from '../../shared/rev-2026-07-28.ts';
import type { ListNews } from '../directory/listeners.ts';
import { KINDS } from '../discovery/question.ts';
import { STREAM_HEADERS } from '../respond.ts';
import { eventOf } from '../sse.ts';

export const LISTEN = 'subscriptions/listen';
export const ACKNOWLEDGED = 'notifications/subscriptions/acknowledged';
/** A beat (`Hold.beatMs`) by which silence is at most two of them, and well below `KEEP_ALIVE_MS`. */
export const LISTEN_BEAT_MS = KEEP_ALIVE_MS / 3;
const MAX_WAITING = 1000;

export interface Subscription {
  /** The request's. */
  readonly id: RequestId;
  /** What is agreed to, in the form of the request's filter. */
  readonly notifications: Readonly<Record<string, unknown>>;
  /** Hears when lists change, and is not accepted yet; absent where none are listened for. */
  readonly directory: WebSocket | undefined;
  /** Whether the client is to hear of these lists, of whatever kind it asked for. */
  concerns(news: ListNews): boolean;
  /** Begins to hand on what servers say; gives back what ends that. */
  follow?(say: (message: JsonRpcMessage) => void): () => void;
  /** Aborted when the client leaves. */
  readonly leaving: AbortController;
}

/** The filter's member for lists of a kind. */
export const listMember = (kind: (typeof KINDS)[number]): string => `${kind}ListChanged`;

/** The stream. */
export function subscribed(subscription: Subscription): Response {
  const { id, notifications, directory, leaving } = subscription;
  const kinds = KINDS.filter((kind) => notifications[listMember(kind)] === true);
  const _meta = { [META.subscriptionId]: id };
  let open = true;
  let unfollow: () => void = () => undefined;
  const leave = () => {
    open = false;
    unfollow();
    directory?.close(1000, 'the client left');
  };
  const body = new ReadableStream<Uint8Array>({
    start(controller) {
      const say = (message: JsonRpcMessage) => {
        if (open && (controller.desiredSize ?? 0) > -MAX_WAITING) controller.enqueue(eventOf(message));
      };
      const end = (last: JsonRpcResponse) => {
        if (!open) return;
        controller.enqueue(eventOf(last));
        controller.close();
        leave();
      };
      say({ jsonrpc: '2.0', method: ACKNOWLEDGED, params: { _meta, notifications } });
      directory?.addEventListener('message', ({ data }) => {
        const news = JSON.parse(String(data)) as ListNews;
        if (news.revoked) return end(failure(id, revoked(news.server)));
        if (!subscription.concerns(news)) return;
        for (const kind of kinds.filter((each) => news.kinds.includes(each))) {
          say({ jsonrpc: '2.0', method: `notifications/${kind}/list_changed`, params: { _meta } });
        }
      });
      // Its end ends the stream in order, and the client listens anew.
      directory?.addEventListener('close', () =>
        end({ jsonrpc: '2.0', id, result: { resultType: 'complete', _meta } }),
      );
      directory?.accept();
      unfollow = subscription.follow?.(say) ?? unfollow;
    },
    cancel: () => leaving.abort(),
  });
  if (leaving.signal.aborted) leave();
  else leaving.signal.addEventListener('abort', leave, { once: true });
  return new Response(body, { headers: STREAM_HEADERS });
}

const revoked = (server: string): MoorageError =>
  new MoorageError('origin_away', `The origin of server "${server}" is not known to this edge any more.`);
