/**
 * Owns what stands between this edge and web pages: which names it may be called by, and whose pages may use it.
 *
 * `Host` is checked because a page may point a name of its own at this address (DNS rebinding), and `Origin` because a page of
 * another site may post here (MCP 2025-11-25, basic/transports, "Security Warning").
 */
import { isLoopbackHost } from '../../shared/config/fetched.ts';
import { MoorageError } from '../../shared/errors.ts';
import type { Settings } from '../settings.ts';
import { allowedOriginsOf, hostsOf } from './settings.ts';

/** @throws MoorageError `forbidden_origin` when the edge is called by a name that is not its own. */
export function checkHost(settings: Settings, url: URL): void {
  const { hostname } = url;
  const configured = settings.MOORAGE_PUBLIC_URL ? URL.parse(settings.MOORAGE_PUBLIC_URL)?.hostname : undefined;
  if (isLoopbackHost(hostname) || hostname === configured || hostsOf(settings).includes(hostname)) return;
  throw new MoorageError(
    'forbidden_origin',
    'This edge is not known by that name (bad Host header). Its owner sets edge.publicUrl (MOORAGE_PUBLIC_URL).',
  );
}

/** Whether an `Origin` header names a page of this host. */
export function isLoopbackOrigin(origin: string): boolean {
  const url = URL.parse(origin);
  return url !== null && (url.protocol === 'http:' || url.protocol === 'https:') && isLoopbackHost(url.hostname);
}

/**
 * @throws MoorageError `forbidden_origin` for a page of another site. Requests of programs have no `Origin`. Pages of the
 * edge's own address are its own, and so are pages of the host when it is the host that is called.
 */
export function checkOrigin(settings: Settings, url: URL, origin: string | null): void {
  if (origin === null || (isLoopbackOrigin(origin) && isLoopbackHost(url.hostname))) return;
  const own = settings.MOORAGE_PUBLIC_URL ? URL.parse(settings.MOORAGE_PUBLIC_URL)?.origin : undefined;
  if (origin === own || allowedOriginsOf(settings).includes(origin)) return;
  throw new MoorageError('forbidden_origin', 'Web pages of other sites may not use this edge (bad Origin header).');
}
