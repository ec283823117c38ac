/**
 * Owns how a command administers an edge: the one that runs here, by the owner's key of its state folder, or one elsewhere,
 * by a token with the scope `admin` from `MOORAGE_TOKEN` (never from the command line, which other users can read), or by the
 * owner's key where that edge was told its public half.
 */
import { randomUUID } from 'node:crypto';
import { edgeAccessHeaders, noAnswer, notOfEdge } from '../router/edge-access.ts';
import { hasOwnerKey, holderOf, loadOwnerKey } from '../router/state.ts';
import { isLoopbackHost } from '../shared/config/fetched.ts';
import { fromErrorBody } from '../shared/errors.ts';
import { importKey } from '../shared/grant.ts';
import { signOwnerToken } from '../shared/owner.ts';
import { stateDirOf } from './control.ts';
import { UsageError } from './usage.ts';

export interface AdminOptions {
  /** The configuration file, beside which the state folder lies. */
  readonly config: string;
  readonly state: string | undefined;
  /** Base URL of an edge elsewhere. */
  readonly url?: string | undefined;
}

/**
 * Paths are below `/admin/api`. All reject with MoorageError for what the edge refuses, RouterError `edge_away` when
 * nothing answers, `edge_refused` and `no_edge` for what answers in its place.
 */
export interface AdminClient {
  get(path: string): Promise<unknown>;
  post(path: string, body: unknown): Promise<unknown>;
  delete(path: string): Promise<unknown>;
}

/** An edge that does not answer within this time, in milliseconds, is away. */
const ANSWER_WITHIN_MS = 30_000;

/** @throws UsageError when no edge runs here, or the token for one elsewhere is missing. */
export async function adminOf(options: AdminOptions): Promise<AdminClient> {
  const { base, token } = await edgeOf(options);
  const front = options.url === undefined ? {} : edgeAccessHeaders();
  const call = async (method: string, path: string, body?: unknown): Promise<unknown> => {
    const response = await fetch(`${base}/admin/api${path}`, {
      method,
      headers: { ...front, authorization: `Bearer ${await token()}`, 'content-type': 'application/json' },
      redirect: 'manual',
      signal: AbortSignal.timeout(ANSWER_WITHIN_MS),
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    }).catch((error: Error) => {
      throw noAnswer(base, error);
    });
    if (response.status === 204) return undefined;
    const value: unknown = await response.json().catch(() => undefined);
    const problem = notOfEdge(new URL(base).host, response.status, value);
    if (problem) throw problem;
    if (!response.ok) throw fromErrorBody(value);
    return value;
  };
  return {
    get: (path) => call('GET', path),
    post: (path, body) => call('POST', path, body),
    delete: (path) => call('DELETE', path),
  };
}

async function edgeOf({ config, state, url }: AdminOptions): Promise<{ base: string; token: () => Promise<string> }> {
  const stateDir = stateDirOf({ config, state });
  const byOwner = async (base: string) => {
    const key = await importKey(await loadOwnerKey(stateDir));
    return { base, token: () => signOwnerToken(key, new URL(base).origin, randomUUID(), Date.now()) };
  };
  if (url === undefined) {
    const holder = holderOf(stateDir);
    if (holder?.url !== undefined) return await byOwner(holder.url);
    throw new UsageError('No router runs here. Start one with "moorage up", or name an edge elsewhere with --url.');
  }
  const parsed = URL.parse(url);
  if (!parsed || !/^https?:$/.test(parsed.protocol)) {
    throw new UsageError('--url takes an address such as https://mcp.example.com.');
  }
  if (parsed.protocol === 'http:' && !isLoopbackHost(parsed.hostname)) {
    throw new UsageError('A token is not sent over plain http: use an https:// address with --url.');
  }
  const base = parsed.href.replace(/\/$/, '');
  const token = process.env.MOORAGE_TOKEN;
  if (token) return { base, token: () => Promise.resolve(token) };
  if (hasOwnerKey(stateDir)) return await byOwner(base);
  throw new UsageError('Put a token with the scope "admin" for that edge into MOORAGE_TOKEN.');
}
