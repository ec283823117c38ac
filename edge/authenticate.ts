/**
 * Owns who is calling: one request in, a principal or a refusal out. Pure.
 *
 * The only mode is `loopback`: whoever can reach the loopback address of the host is its owner. The `Host` header is
 * checked because a web page may point a name of its own at 127.0.0.1 (DNS rebinding), and the `Origin` header because a
 * page of another site may post here (MCP 2025-11-25, basic/transports, "Security Warning").
 */
import { MoorageError } from '../shared/errors.ts';

/** Who calls. Only ever one in `loopback` mode. */
export interface Principal {
  readonly subject: string;
}

const LOOPBACK = new Set(['localhost', '127.0.0.1', '[::1]']);
/** A proxy that tells where a request came from; one that names another address proves that it is not local. */
const FORWARDED = ['cf-connecting-ip', 'x-forwarded-for', 'forwarded'] as const;
const LOOPBACK_ADDRESS = /^(127(\.\d{1,3}){3}|::1|\[::1\])$/;

/** @throws MoorageError `authentication_required`. */
export function authenticate(mode: string | undefined, url: URL, headers: Headers): Principal {
  if (mode !== 'loopback') {
    throw new MoorageError(
      'authentication_required',
      'This edge has no way to authenticate callers and therefore lets nobody in. Set MOORAGE_AUTH.',
    );
  }
  const forwarded = FORWARDED.map((name) => headers.get(name)).find(
    (value) => value !== null && !LOOPBACK_ADDRESS.test(value.trim()),
  );
  if (!LOOPBACK.has(url.hostname) || forwarded !== undefined) {
    throw new MoorageError(
      'authentication_required',
      'Without authentication this edge answers only on localhost, 127.0.0.1 and [::1], to callers of the same host.',
    );
  }
  return { subject: 'anonymous' };
}

/** Whether an `Origin` header names a page of this host. */
export function isLoopbackOrigin(origin: string): boolean {
  const url = URL.parse(origin);
  return url !== null && (url.protocol === 'http:' || url.protocol === 'https:') && LOOPBACK.has(url.hostname);
}

/** @throws MoorageError `forbidden_origin` for a page of another site. Requests of programs have no `Origin`. */
export function checkOrigin(origin: string | null): void {
  if (origin === null || isLoopbackOrigin(origin)) return;
  throw new MoorageError('forbidden_origin', 'Web pages of other sites may not use this edge (bad Origin header).');
}
