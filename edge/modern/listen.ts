/**
 * Owns `subscriptions/listen` of the stateless era at a server of an origin. The edge answers it: what the server can tell is
 * known from its copy of `server/discover`, and the Directory says when what is known of its lists becomes another, be it
 * that a process said so or that another deployment runs. Updates of resources are the process's to tell (`updates.ts`). No
 * machine is woken for any of it, and none is kept awake.
 *
 * Left to be carried to the server's process: a listen for anything else, and every one where discovery is live.
 */
import { failure, type JsonRpcFailure, type JsonRpcRequest } from '../../shared/jsonrpc.ts';
import { isRecord } from '../../shared/rev-2026-07-28.ts';
import { unanswered } from '../attempt.ts';
import { directoryOf, joinDirectory } from '../directory/object.ts';
import { KINDS } from '../discovery/question.ts';
import { answerIn } from '../discovery/reconcile.ts';
import { type CarriedRequest, carryModern } from './carry.ts';
import { withStatus } from './status.ts';
import { listMember, subscribed } from './subscription.ts';
import { type Updates, updatesOf } from './updates.ts';

interface Filter {
  /** Members that ask for lists, each `true`. */
  readonly lists: Readonly<Record<string, unknown>>;
  readonly uris: readonly string[];
}

/** Answers one, or gives null for one that is to be carried. `leaving` is aborted when the client leaves. @throws MoorageError. */
export async function listenModern(carried: CarriedRequest, leaving: AbortController): Promise<Response | null> {
  const { env, holder, request } = carried;
  const wanted = wantedOf(request);
  if (!wanted || !(await keepsCopies(carried))) return null;
  // First: what changes from here on is told.
  const forLists = Object.values(wanted.lists).includes(true);
  const directory = forLists ? await joinDirectory(env, holder.principal, holder.server) : undefined;
  const leave = () => {
    directory?.accept();
    directory?.close(1000, 'nobody listens');
  };
  try {
    const begun = await begin(carried, wanted);
    if (!('error' in begun)) return subscribed({ ...begun, id: request.id, directory, concerns: () => true, leaving });
    leave();
    return await withStatus(Response.json(begun));
  } catch (thrown) {
    leave();
    throw thrown;
  }
}

/** The filter of a listen that the edge can answer; null for any other. */
function wantedOf({ params }: JsonRpcRequest): Filter | null {
  const filter = params?.notifications;
  if (!isRecord(filter)) return null;
  const { resourceSubscriptions: uris = [], ...lists } = filter;
  const isKnown = Object.keys(lists).every((member) => KINDS.map(listMember).includes(member));
  return isKnown && isTexts(uris) ? { lists, uris } : null;
}

async function keepsCopies({ env, holder }: CarriedRequest): Promise<boolean> {
  const found = await directoryOf(env).resolve(holder.server);
  return 'route' in found && found.route.runtime !== 'edge' && found.route.discovery.copies !== 'none';
}

/** What is agreed to, and how the rest of it is heard; or the error by which the server refuses. */
async function begin(
  carried: CarriedRequest,
  wanted: Filter,
): Promise<({ notifications: Record<string, unknown> } & Partial<Updates>) | JsonRpcFailure> {
  const discovered = (await discoveredBy(carried)) ?? failure(carried.request.id, unanswered());
  if ('error' in discovered) return discovered;
  const { lists, uris } = honoured(wanted, discovered.result.capabilities);
  if (uris.length === 0) return { notifications: lists };
  const updates = await updatesOf(carried, uris);
  if ('error' in updates) return updates;
  const agreed = updates.uris.length > 0 ? { resourceSubscriptions: updates.uris } : {};
  return { ...updates, notifications: { ...lists, ...agreed } };
}

/** What the server says of itself to this client: from the copy, or (once) from its process. */
async function discoveredBy(carried: CarriedRequest) {
  const { _meta } = carried.request.params ?? {};
  const request: JsonRpcRequest = { ...carried.request, method: 'server/discover', params: { _meta } };
  const bytes = new TextEncoder().encode(JSON.stringify(request));
  const response = await carryModern({ ...carried, request, bytes });
  // Of one that was cancelled there is nothing to read.
  return carried.signal.aborted ? undefined : await answerIn(response, request.id);
}

/** The part of the filter that a server with these capabilities promises. */
function honoured({ lists, uris }: Filter, capabilities: unknown): Filter & { lists: Record<string, unknown> } {
  const promises = (name: string, member: string) =>
    isRecord(capabilities) && isRecord(capabilities[name]) && capabilities[name][member] === true;
  const kinds = KINDS.filter((kind) => lists[listMember(kind)] === true && promises(kind, 'listChanged'));
  return {
    lists: Object.fromEntries(kinds.map((kind) => [listMember(kind), true])),
    uris: promises('resources', 'subscribe') ? uris : [],
  };
}

const isTexts = (value: unknown): value is string[] =>
  Array.isArray(value) && value.every((each) => typeof each === 'string');
