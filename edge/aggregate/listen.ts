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
import { isRecord } from '../../shared/rev-2026-07-28.ts';
import { joinDirectory } from '../directory/object.ts';
import { KINDS } from '../discovery/question.ts';
import { messagesIn } from '../events-of.ts';
import { heldOpen } from '../modern/hold.ts';
import { LISTEN_BEAT_MS, listMember, subscribed } from '../modern/subscription.ts';
import { shownOf, type Viewer } from './find.ts';
import type { UriNames } from './names.ts';
import { fromServer } from './rewrite.ts';

/** So long, in milliseconds, servers are waited for: one that boots is heard when it is there. */
const ACKNOWLEDGED_WITHIN_MS = 5000;

export interface ListenOptions {
  readonly viewer: Viewer;
  readonly request: JsonRpcRequest;
  readonly servers: readonly string[];
  readonly uris: UriNames;
  /** A request to a server's own endpoint. */
  readonly send: (server: string, inner: JsonRpcRequest, signal: AbortSignal) => Promise<Response>;
  /** Aborted when the client leaves. */
  readonly leaving: AbortController;
}

/** The stream; its own acknowledgement comes first, once the servers have given theirs. @throws MoorageError. */
export async function listenToAll(options: ListenOptions): Promise<Response> {
  const { request, leaving } = options;
  const filter = request.params?.notifications;
  if (!isRecord(filter)) throw new MoorageError('invalid_params', '"notifications" must say what to listen for.');
  return await heldOpen(opened(options, filter), { id: request.id, beatMs: LISTEN_BEAT_MS, leaving });
}

async function opened(options: ListenOptions, filter: Readonly<Record<string, unknown>>): Promise<Response> {
  const { viewer, request, uris, send, leaving } = options;
  const lists = KINDS.some((kind) => filter[listMember(kind)] === true);
  const directory = lists ? await joinDirectory(viewer.env, viewer.principal.subject) : undefined;
  const ending = new AbortController();
  const signal = AbortSignal.any([leaving.signal, ending.signal]);
  const members = membersOf(options, filter).map(({ server, request: own }) => ({
    server,
    messages: acknowledged(send(server, own, signal)),
  }));
  const slow = new Promise((resolve) => setTimeout(resolve, ACKNOWLEDGED_WITHIN_MS));
  await Promise.race([Promise.all(members.map(({ messages }) => messages)), slow]);
  return subscribed({
    id: request.id,
    notifications: filter,
    directory,
    concerns: ({ server }) => shownOf(viewer, [server]).length > 0,
    follow: (say) => {
      for (const { server, messages } of members) {
        void follow(messages, (message) => say(fromServer(server, message, uris)));
      }
      return () => ending.abort();
    },
    leaving,
  });
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

/** The messages of a server's stream after its acknowledgement, which was ours to give; undefined where there are none. */
async function acknowledged(opening: Promise<Response>): Promise<AsyncGenerator<JsonRpcMessage> | undefined> {
  try {
    const messages = messagesIn(await opening);
    await messages.next();
    return messages;
  } catch {
    // A server that cannot be listened to takes nothing else along.
    return undefined;
  }
}

/** Hands on each message of a stream until it ends, which is not the end of the others. */
async function follow(
  opened: Promise<AsyncGenerator<JsonRpcMessage> | undefined>,
  hear: (message: JsonRpcMessage) => void,
): Promise<void> {
  try {
    for await (const message of (await opened) ?? []) if ('method' in message) hear(message);
  } catch {
    // It broke: the others go on.
  }
}
