/**
 * Owns one `subscriptions/listen` of a client at a server with sessions (2026-07-28, basic/patterns/subscriptions).
 *
 * States: opening (what arrives is kept), open (acknowledged), closed. Invariants: the acknowledgement comes first; only
 * what was asked for and acknowledged is sent; every message carries the subscription's id.
 */
import { type JsonRpcNotification, type JsonRpcRequest, nameFrom } from '../../../shared/jsonrpc.ts';
import { isRecord, META, metaOf } from '../../../shared/rev-2026-07-28.ts';
import type { CallSink } from '../peer.ts';

/** What a client wants to hear of. */
export interface Filter {
  readonly lists: ReadonlySet<string>;
  readonly uris: readonly string[];
}

/** Members of the filter that ask for a list: the notification each stands for, and the capability that it needs. */
const LISTS = [
  ['toolsListChanged', 'notifications/tools/list_changed', 'tools'],
  ['promptsListChanged', 'notifications/prompts/list_changed', 'prompts'],
  ['resourcesListChanged', 'notifications/resources/list_changed', 'resources'],
] as const;
const UPDATED = 'notifications/resources/updated';
const MAX_URIS = 1_000;
/** Notifications kept until the acknowledgement, at most. */
const MAX_EARLY = 100;

/** The part of the wanted filter that a server with these capabilities can honour. */
export function filterOf({ params }: JsonRpcRequest, capabilities: unknown): Filter {
  const wanted = isRecord(params?.notifications) ? params.notifications : {};
  const has = (name: string, member: string) =>
    isRecord(capabilities) && isRecord(capabilities[name]) && capabilities[name][member] === true;
  const lists = LISTS.filter(([member, , capability]) => wanted[member] === true && has(capability, 'listChanged'));
  const named = Array.isArray(wanted.resourceSubscriptions) ? wanted.resourceSubscriptions : [];
  const uris = has('resources', 'subscribe') ? named.filter((uri): uri is string => typeof uri === 'string') : [];
  return { lists: new Set(lists.map(([, method]) => method)), uris: [...new Set(uris)].slice(0, MAX_URIS) };
}

export class Listen {
  readonly #id: JsonRpcRequest['id'];
  readonly #sink: CallSink;
  #filter: Filter;
  #early: JsonRpcNotification[] | undefined = [];

  constructor(id: JsonRpcRequest['id'], sink: CallSink, filter: Filter) {
    this.#id = id;
    this.#sink = sink;
    this.#filter = filter;
  }

  /** Opens the stream with what the server agreed to. */
  acknowledge(uris: readonly string[]): void {
    this.#filter = { ...this.#filter, uris };
    const lists = LISTS.filter(([, method]) => this.#filter.lists.has(method)).map(([member]) => [member, true]);
    const notifications = { ...Object.fromEntries(lists), ...(uris.length > 0 ? { resourceSubscriptions: uris } : {}) };
    this.#say({ jsonrpc: '2.0', method: 'notifications/subscriptions/acknowledged', params: { notifications } });
    const early = this.#early ?? [];
    this.#early = undefined;
    for (const message of early) this.hear(message);
  }

  /** Something the server said to all. */
  hear(message: JsonRpcNotification): void {
    if (!this.#wants(message)) return;
    if (!this.#early) this.#say(message);
    else if (this.#early.length < MAX_EARLY) this.#early.push(message);
  }

  /** The server has ended: a graceful end, after which the client listens again. */
  end(): void {
    const result = { resultType: 'complete', _meta: { [META.subscriptionId]: this.#id } };
    this.#sink.answer({ jsonrpc: '2.0', id: this.#id, result });
  }

  #wants({ method, params }: JsonRpcNotification): boolean {
    if (method !== UPDATED) return this.#filter.lists.has(method);
    // A server may name a part of what was subscribed to (2025-11-25, ResourceUpdatedNotification).
    const uri = nameFrom(params?.uri);
    return this.#filter.uris.some((each) => uri === each || uri.startsWith(each));
  }

  #say(message: JsonRpcNotification): void {
    const _meta = { ...metaOf(message.params), [META.subscriptionId]: this.#id };
    this.#sink.message({ ...message, params: { ...message.params, _meta } });
  }
}
