/**
 * Owns the lists at `/mcp`: those of all servers as one, in the order of the servers' names.
 *
 * A server that fails, or is not there in time, is left out and named in `_meta`, the others are listed. All pages of a
 * server are fetched, up to a bound; what is over it comes under a cursor of ours. Entries that are none by the specification
 * are left out: a client that checks what it reads would throw the whole list away, with what all other servers have.
 *
 * Invariant: the same servers with the same lists give the same result, whatever the order in which they answer.
 */
import { isSpecType } from '@modelcontextprotocol/server';
import { MoorageError, toMoorageError } from '../../shared/errors.ts';
import { passes } from '../../shared/glob.ts';
import { expose, type UriNames } from './names.ts';

/** One page of one server's list. */
export type ListPage = (server: string, cursor: string | undefined) => Promise<Readonly<Record<string, unknown>>>;

/** Where a list's entries are in its result, how an entry is exposed, and what is one. */
const LISTS = {
  'tools/list': { key: 'tools', id: 'name', isEntry: isSpecType.Tool },
  'prompts/list': { key: 'prompts', id: 'name', isEntry: isSpecType.Prompt },
  'resources/list': { key: 'resources', id: 'uri', isEntry: isSpecType.Resource },
  'resources/templates/list': { key: 'resourceTemplates', id: 'uriTemplate', isEntry: isSpecType.ResourceTemplate },
} as const;
export type ListMethod = keyof typeof LISTS;
export const isListMethod = (method: string): method is ListMethod => Object.hasOwn(LISTS, method);

/** `_meta` key under which servers that are missing from a list, or some of whose entries are, are named. */
export const UNAVAILABLE = 'moorage/unavailable';
/** Pages of one server that one answer holds, at most. */
const MAX_PAGES = 20;
/** How long a list waits for one server, in milliseconds: a machine may have to boot. */
const WITHIN_MS = 25_000;

export interface ListOptions {
  readonly method: ListMethod;
  readonly servers: readonly string[];
  readonly cursor: string | undefined;
  readonly page: ListPage;
  readonly uris: UriNames;
  /** Globs over `server__name`, for tools. */
  readonly tools: readonly string[];
  /** A server that was not there in time answered after all. */
  readonly late?: (server: string, done: Promise<unknown>) => void;
}

interface Part {
  readonly entries: Record<string, unknown>[];
  readonly next: string | undefined;
  readonly hints: readonly Readonly<Record<string, unknown>>[];
  /** Why something of the server is missing. */
  readonly missing?: string;
}

/** The result of a list over all servers. @throws MoorageError `invalid_params` for a cursor that is not ours. */
export async function listAll(options: ListOptions): Promise<Record<string, unknown>> {
  const { method, servers, cursor } = options;
  const from = cursor === undefined ? new Map(servers.map((server) => [server, undefined])) : readCursor(cursor);
  const asked = servers.filter((server) => from.has(server));
  const parts = await Promise.all(
    asked.map(async (server) => {
      try {
        return await within(options, server, pagesOf(options, server, from.get(server)));
      } catch (thrown) {
        const error = toMoorageError(thrown);
        // A server without this capability has an empty list, which is nothing to report.
        const missing = error.code === 'not_found' ? {} : { missing: error.message };
        return { entries: [], next: undefined, hints: [], ...missing };
      }
    }),
  );
  const left = asked.flatMap((server, n) => (parts[n]?.next === undefined ? [] : [[server, parts[n].next] as const]));
  const unavailable = asked.flatMap((server, n) => {
    const reason = parts[n]?.missing;
    return reason === undefined ? [] : [{ server, reason }];
  });
  return {
    [LISTS[method].key]: parts.flatMap((part) => part.entries),
    ...(left.length > 0 ? { nextCursor: writeCursor(left) } : {}),
    ...hintsOf(parts.flatMap((part) => part.hints)),
    ...(unavailable.length > 0 ? { _meta: { [UNAVAILABLE]: unavailable } } : {}),
  };
}

/** The name that a server has for an exposed one that cannot be read back by itself. */
export async function findHashed(
  exposed: string,
  servers: readonly string[],
  method: 'tools/list' | 'prompts/list',
  page: ListPage,
): Promise<{ server: string; name: string } | undefined> {
  for (const server of servers) {
    let cursor: string | undefined;
    for (let pages = 0; pages < MAX_PAGES; pages++) {
      const result = await page(server, cursor);
      for (const { name } of entriesOf(result, method).entries) {
        if (typeof name === 'string' && (await expose(server, name)) === exposed) return { server, name };
      }
      if (typeof result.nextCursor !== 'string') break;
      cursor = result.nextCursor;
    }
  }
  return undefined;
}

async function pagesOf(options: ListOptions, server: string, first: string | undefined): Promise<Part> {
  const { method, page } = options;
  const entries: Record<string, unknown>[] = [];
  const hints: Readonly<Record<string, unknown>>[] = [];
  let cursor = first;
  let malformed = 0;
  for (let pages = 0; pages < MAX_PAGES; pages++) {
    const result = await page(server, cursor);
    hints.push(result);
    const listed = entriesOf(result, method);
    malformed += listed.malformed;
    for (const entry of listed.entries) {
      const exposed = await exposeEntry(options, server, entry);
      if (exposed) entries.push(exposed);
    }
    cursor = typeof result.nextCursor === 'string' ? result.nextCursor : undefined;
    if (cursor === undefined) break;
  }
  const missing = malformed === 0 ? {} : { missing: `${malformed} of its entries are malformed, and left out.` };
  return { entries, next: cursor, hints, ...missing };
}

async function exposeEntry(
  { method, uris, tools }: ListOptions,
  server: string,
  entry: Readonly<Record<string, unknown>>,
): Promise<Record<string, unknown> | undefined> {
  const { id } = LISTS[method];
  const value = entry[id];
  if (typeof value !== 'string') return undefined;
  if (method === 'tools/list' && !passes(`${server}__${value}`, tools)) return undefined;
  return { ...entry, [id]: id === 'name' ? await expose(server, value) : uris.expose(server, value) };
}

/** The entries that are some by the specification, and how many are not. */
function entriesOf(result: Readonly<Record<string, unknown>>, method: ListMethod) {
  const { key, isEntry } = LISTS[method];
  const listed: unknown = result[key];
  const all: readonly unknown[] = Array.isArray(listed) ? listed : [];
  // The specification's types allow other members, and those pass.
  const entries = all.filter((entry) => isEntry(entry)) as Record<string, unknown>[];
  return { entries, malformed: all.length - entries.length };
}

/**
 * Caching hints of the stateless era (2026-07-28, "Caching"): as short as that of any part, and private, for which servers
 * are in it depends on who asks.
 */
function hintsOf(results: readonly Readonly<Record<string, unknown>>[]): Record<string, unknown> {
  const ttls = results.flatMap(({ ttlMs }) => (typeof ttlMs === 'number' ? [ttlMs] : []));
  return ttls.length === 0 ? {} : { ttlMs: Math.min(...ttls), cacheScope: 'private' };
}

async function within<T>({ late }: ListOptions, server: string, work: Promise<T>): Promise<T> {
  const { promise: timeout, reject } = Promise.withResolvers<never>();
  const timer = setTimeout(() => {
    late?.(server, work);
    reject(new MoorageError('request_timeout', 'It is still starting. List again in a moment.'));
  }, WITHIN_MS);
  try {
    return await Promise.race([work, timeout]);
  } finally {
    clearTimeout(timer);
  }
}

function writeCursor(left: readonly (readonly [string, string | undefined])[]): string {
  return btoa(encodeURIComponent(JSON.stringify(left)));
}

function readCursor(cursor: string): Map<string, string | undefined> {
  try {
    const value: unknown = JSON.parse(decodeURIComponent(atob(cursor)));
    if (
      Array.isArray(value) &&
      value.every((pair) => Array.isArray(pair) && pair.every((x) => typeof x === 'string'))
    ) {
      return new Map(value as [string, string][]);
    }
  } catch {
    // Falls through to the same refusal: what it is not matters to nobody.
  }
  throw new MoorageError('invalid_params', 'This cursor was not given out here. List again without one.');
}
