/** Owns which servers `/mcp` shows, what it says of itself, and which of them a request is for. */
import { MoorageError } from '../../shared/errors.ts';
import { passes } from '../../shared/glob.ts';
import type { JsonRpcRequest } from '../../shared/jsonrpc.ts';
import type { Principal } from '../../shared/principal.ts';
import { directoryOf } from '../directory/object.ts';
import { aggregateSettingsOf, type Env } from '../env.ts';
import { visible } from '../guard/guard.ts';
import { findHashed, type ListPage } from './lists.ts';
import { candidates, readName, type UriNames } from './names.ts';
import { targetOf } from './rewrite.ts';

/** What `/mcp` can do as a whole: a server that lacks one of it adds nothing to it. */
export const CAPABILITIES = {
  tools: { listChanged: true },
  prompts: { listChanged: true },
  resources: { listChanged: true, subscribe: true },
  completions: {},
  logging: {},
};
export const SERVER_INFO = { name: 'moorage', title: 'Moorage', version: '1' };
export const INSTRUCTIONS =
  'Several MCP servers behind one address. A tool or prompt "a__b" is "b" of server "a"; a resource "a+uri" is "uri" of server "a".';

export interface Viewer {
  readonly env: Env;
  readonly principal: Principal;
}

/** Names of the servers that `/mcp` shows to a viewer, sorted. */
export async function serversOf(viewer: Viewer): Promise<string[]> {
  return shownOf(viewer, await directoryOf(viewer.env).list());
}

/** Those of `servers` that it shows. */
export function shownOf({ env, principal }: Viewer, servers: readonly string[]): string[] {
  const { servers: patterns } = aggregateSettingsOf(env);
  const matching = servers.filter((server) => passes(server, patterns));
  return visible(env, principal, matching);
}

export interface Finding {
  readonly servers: readonly string[];
  readonly uris: UriNames;
  /** Globs over `server__tool`. */
  readonly tools: readonly string[];
  /** Pages of a list, for names that cannot be read back by themselves. */
  readonly page: (method: 'tools/list' | 'prompts/list') => ListPage;
}

/**
 * The server that a request is for, and what it calls the tool, prompt or resource.
 * @throws MoorageError `method_not_found` for a method that is not about one of them, `invalid_params` for an unknown one.
 */
export async function findServer(
  request: JsonRpcRequest,
  { servers, uris, tools, page }: Finding,
): Promise<{ server: string; known: string }> {
  const target = targetOf(request);
  if (target.by === 'nothing') {
    throw new MoorageError('method_not_found', `"${request.method.slice(0, 100)}" is not served at /mcp.`);
  }
  if (target.by === 'uri') {
    const read = uris.read(target.uri);
    if (!read) throw unknown('resource', target.uri);
    return { server: read.server, known: read.uri };
  }
  const list = target.by === 'tool' ? 'tools/list' : 'prompts/list';
  const read = readName(target.name);
  const found =
    read === 'hashed' ? await findHashed(target.name, candidates(target.name, servers), list, page(list)) : read;
  if (!found || !servers.includes(found.server)) throw unknown(target.by, target.name);
  if (target.by === 'tool' && !passes(`${found.server}__${found.name}`, tools)) throw unknown('tool', target.name);
  return { server: found.server, known: found.name };
}

function unknown(what: 'tool' | 'prompt' | 'resource', name: string): MoorageError {
  return new MoorageError(
    'invalid_params',
    `Unknown ${what}: ${name.slice(0, 200)}. List again: names at /mcp are "server__name", resources "server+uri".`,
  );
}
