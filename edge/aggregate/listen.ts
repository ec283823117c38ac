/**
 * Owns `subscriptions/listen` at `/mcp` (2026-07-28): one stream of what its servers say.
 *
 * Resources are listened for at the server that has them, lists at the servers of the edge. No machine is woken for a list
 * that may change: of servers at an origin the Directory says when what is known of their lists becomes another, be it that a
 * process said so or that another deployment runs.
 */
import { edgeServers } from 'moorage:edge-servers';
import { MoorageError } from '../../shared/errors.ts';
import type { JsonRpcMessage, JsonRpcRequest } from '../../shared/jsonrpc.ts';
import { KEEP_ALIVE_MS } from '../../shared/origin-api.ts';
import { isRecord, META } from '../../shared/rev-2026-07-28.ts';
import type { ListNews } from '../directory/listeners.ts';
import { joinDirectory } from '../directory/object.ts';
import { KINDS } from '../discovery/question.ts';
import { heldOpen } from '../modern/hold.ts';
import { STREAM_HEADERS } from '../respond.ts';
import { eventOf, messageOf, SseScanner } from '../sse.ts';
import { shownOf, type Viewer } from './find.ts';
import type { UriNames } from './names.ts';
import { fromServer } from './rewrite.ts';

const ACKNOWLEDGED = 'notifications/subscriptions/acknowledged';

export interface ListenOptions {
  readonly viewer: Viewer;
  readonly request: JsonRpcRequest;
  readonly servers: readonly string[];
  readonly uris: UriNames;
  /** A request to a server's own endpoint. */
  readonly send: (server: string, inner: JsonRpcRequest) => Promise<Response>;
  /** Aborted when the client leaves. */
  readonly leaving: AbortController;
}

/** The stream; its own acknowledgement comes first, the servers' are theirs. @throws MoorageError. */
export async function listenToAll(options: ListenOptions): Promise<Response> {
  const { viewer, request, uris, send, leaving } = options;
  const filter = request.params?.notifications;
  if (!isRecord(filter)) throw new MoorageError('invalid_params', '"notifications" must say what to listen for.');
  const kinds = KINDS.filter((kind) => filter[`${kind}ListChanged`] === true);
  const directory = kinds.length > 0 ? await joinDirectory(viewer.env, viewer.principal.subject) : undefined;
  const _meta = { [META.subscriptionId]: request.id };
  const followed = new Set<ReadableStreamDefaultReader<Uint8Array>>();
  let open = true;
  const body = new ReadableStream<Uint8Array>({
    start(controller) {
      const write = (message: JsonRpcMessage) => {
        if (open) controller.enqueue(eventOf(message));
      };
      write({ jsonrpc: '2.0', method: ACKNOWLEDGED, params: { _meta, notifications: filter } });
      directory?.addEventListener('message', ({ data }) => {
        const news = JSON.parse(String(data)) as ListNews;
        if (shownOf(viewer, [news.server]).length === 0) return;
        for (const kind of kinds.filter((each) => news.kinds.includes(each))) {
          write({ jsonrpc: '2.0', method: `notifications/${kind}/list_changed`, params: { _meta } });
        }
      });
      // Its end ends the stream in order, and the client listens anew.
      directory?.addEventListener('close', () => {
        if (!open) return;
        write({ jsonrpc: '2.0', id: request.id, result: { resultType: 'complete', _meta } });
        open = false;
        controller.close();
        for (const reader of followed) void reader.cancel();
      });
      for (const member of membersOf(options, filter)) {
        void follow(send(member.server, member.request), followed, (message) => {
          // Its acknowledgement was ours to give, and its end is not the end of the others.
          if ('method' in message && message.method !== ACKNOWLEDGED) write(fromServer(member.server, message, uris));
        });
      }
    },
    cancel: () => leaving.abort(),
  });
  const leave = () => {
    open = false;
    directory?.close(1000, 'the client left');
  };
  leaving.signal.addEventListener('abort', leave, { once: true });
  const opened = Promise.resolve(new Response(body, { headers: STREAM_HEADERS }));
  return await heldOpen(opened, { id: request.id, beatMs: KEEP_ALIVE_MS, leaving });
}

/** What is listened for at servers themselves. */
function membersOf(
  { request, servers, uris }: ListenOptions,
  { resourceSubscriptions, ...lists }: Readonly<Record<string, unknown>>,
): { server: string; request: JsonRpcRequest }[] {
  const wanted = Array.isArray(resourceSubscriptions) ? resourceSubscriptions.map(String) : [];
  return servers.flatMap((server) => {
    const own = wanted.flatMap((uri) => {
      const read = uris.read(uri);
      return read?.server === server ? [read.uri] : [];
    });
    const listening = Object.hasOwn(edgeServers, server) && Object.keys(lists).length > 0;
    if (own.length === 0 && !listening) return [];
    const notifications = { ...(listening ? lists : {}), ...(own.length > 0 ? { resourceSubscriptions: own } : {}) };
    return [{ server, request: { ...request, params: { ...request.params, notifications } } }];
  });
}

/** Hands on each message of a stream until it ends; one that breaks takes nothing else along. */
async function follow(
  opening: Promise<Response>,
  followed: Set<ReadableStreamDefaultReader<Uint8Array>>,
  hear: (message: JsonRpcMessage) => void,
): Promise<void> {
  const response = await opening.catch(() => undefined);
  const reader = response?.body?.getReader();
  if (!reader) return;
  followed.add(reader);
  const scanner = new SseScanner();
  const next = () => reader.read().catch(() => ({ done: true, value: undefined }) as const);
  for (let part = await next(); !part.done && part.value; part = await next()) {
    for (const event of scanner.push(part.value as Uint8Array)) {
      const message = messageOf(event);
      if (message) hear(message);
    }
  }
  followed.delete(reader);
}
