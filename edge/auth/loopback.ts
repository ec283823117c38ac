/**
 * Owns the kind `loopback`: whoever can reach the loopback address of the host is let in to its servers, with no credential.
 * Administration asks for more: other users of the host, and pages in their browsers, reach that address too.
 *
 * The name in the URL proves nothing by itself (`Host` is the client's to write): what is bound to a loopback address can
 * be reached from the same host only, and the configuration refuses this kind on any other address.
 */
import { isLoopbackHost } from '../../shared/config/fetched.ts';
import { ANONYMOUS } from '../../shared/principal.ts';
import type { Method } from './method.ts';

/** A proxy that tells where a request came from; one that names another address proves that it is not local. */
const FORWARDED = ['cf-connecting-ip', 'x-forwarded-for', 'forwarded'] as const;
const LOOPBACK_ADDRESS = /^(127(\.\d{1,3}){3}|::1|\[::1\])$/;

export const loopback: Method = async ({ auth, url, headers }) =>
  auth.loopback && isLocal(url, headers) ? ANONYMOUS : null;

/** Whether a request names the host itself, and no proxy on its way says that it came from another. */
export function isLocal(url: URL, headers: Headers): boolean {
  const forwarded = FORWARDED.map((name) => headers.get(name)).find(
    (value) => value !== null && !LOOPBACK_ADDRESS.test(value.trim()),
  );
  return isLoopbackHost(url.hostname) && forwarded === undefined;
}
