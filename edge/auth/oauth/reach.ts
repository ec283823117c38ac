/** Owns how an upstream is asked from the edge, within bounds of time and size, and how it is told that it gave no good answer. */
import { isLoopbackHost } from '../../../shared/config/fetched.ts';
import { MoorageError } from '../../../shared/errors.ts';
import { readBounded } from '../../read-message.ts';
import { isPublic } from '../fetch-public.ts';
import type { FetchText } from '../keys.ts';

type Fetch = (url: string, init: RequestInit) => Promise<Response>;

export interface Reach {
  /** Calls the upstream's endpoints. */
  readonly fetch: Fetch;
  readonly fetchText: FetchText;
  /** The secret that the upstream gave to this edge; absent for a public client. */
  readonly secret?: string | undefined;
  readonly now: number;
}

const MAX_ANSWER = 256 * 1024;
const WITHIN_MS = 10_000;

/**
 * Calls an endpoint of the upstream. The owner configured it, or a discovery document names it: it is public and HTTPS, or, through
 * `loopback`, on the edge's own host (see `fetch-public.ts`). Rejects for any other.
 */
export async function fetchUpstream(
  address: string,
  init: RequestInit,
  loopback: { fetch: Fetch } | undefined,
  through: Fetch = fetch,
): Promise<Response> {
  const url = new URL(address);
  if (isLoopbackHost(url.hostname) && loopback) return await loopback.fetch(address, init);
  if (!isPublic(url)) throw new TypeError('This is no public https address.');
  return await through(address, init);
}

/** The JSON at an endpoint. @throws MoorageError `issuer_away`, `authentication_required`. */
export async function jsonAt({ fetch: through }: Reach, url: string, init: RequestInit): Promise<unknown> {
  const response = await through(url, { ...init, redirect: 'manual', signal: AbortSignal.timeout(WITHIN_MS) }).catch(
    () => {
      throw away();
    },
  );
  if (!response.ok) {
    await response.body?.cancel();
    throw response.status >= 500 ? away() : refused();
  }
  try {
    return JSON.parse(new TextDecoder().decode(await readBounded(response, MAX_ANSWER)));
  } catch {
    throw refused();
  }
}

export const away = (): MoorageError =>
  new MoorageError('issuer_away', 'Where people log in does not answer now. Try again in a minute.');
export const refused = (): MoorageError =>
  new MoorageError(
    'authentication_required',
    'Where people log in did not say who you are. Start again in your client.',
  );
export const notListed = (): MoorageError =>
  new MoorageError(
    'forbidden',
    'You are known there, and not on the list of people who may use this edge. Ask its owner.',
  );
