/**
 * Owns how the edge fetches documents whose addresses others have a say in (keys, discovery, metadata of clients), so that
 * nobody makes it a way into networks that only it can reach (SSRF).
 *
 * HTTPS, no redirects, bounded in time and size, no address of a private network. What a public name resolves to is the
 * runtime's to check: workerd connects to public addresses only (`Network.allow`), Cloudflare with the flag
 * `global_fetch_strictly_public`.
 */
import ipaddr from 'ipaddr.js';
import { isLoopbackHost } from '../../shared/config/fetched.ts';
import { MoorageError } from '../../shared/errors.ts';
import { readBounded } from '../read-message.ts';

const MAX_BYTES = 256 * 1024;
const WITHIN_MS = 5000;
/** Names that no public DNS resolves (RFC 6761, RFC 6762, RFC 8375 and the reserved `internal`). */
const PRIVATE_NAME = /(^|\.)(localhost|local|internal|home\.arpa|lan|intranet|corp|home|test|invalid|onion)\.?$/i;

export interface FetchPublic {
  /**
   * Where loopback addresses are fetched: only for an address that the owner configured. Without it they are refused.
   */
  readonly loopback?: { fetch(url: string, init: RequestInit): Promise<Response> } | undefined;
  readonly fetch?: (url: string, init: RequestInit) => Promise<Response>;
}

/** The text of a document. @throws MoorageError `issuer_away` for everything that goes wrong. */
export async function fetchPublic(address: string, options: FetchPublic = {}): Promise<string> {
  const url = URL.parse(address);
  const local = url !== null && isLoopbackHost(url.hostname) && options.loopback !== undefined;
  if (!url || (!local && !isPublic(url))) throw away(address, 'its address is not a public https address');
  const through = (local ? options.loopback?.fetch.bind(options.loopback) : options.fetch) ?? fetch;
  const signal = AbortSignal.timeout(WITHIN_MS);
  let response: Response;
  try {
    response = await through(url.href, { redirect: 'manual', headers: { accept: 'application/json' }, signal });
  } catch {
    throw away(address, 'it does not answer');
  }
  if (response.status !== 200) {
    await response.body?.cancel();
    throw away(address, `it answered with status ${response.status}`);
  }
  try {
    return new TextDecoder().decode(await readBounded(response, MAX_BYTES));
  } catch {
    throw away(address, 'its answer is too large or broke off');
  }
}

/** Whether an address may be fetched, as far as it shows by itself. */
export function isPublic(url: URL): boolean {
  if (url.protocol !== 'https:' || url.username !== '' || url.password !== '') return false;
  const host = url.hostname.replace(/^\[|\]$/g, '');
  // URL has written every spelling of an IPv4 address (octal, hexadecimal, one number) in the usual form.
  if (ipaddr.isValid(host)) return ipaddr.process(host).range() === 'unicast';
  return host.includes('.') && !PRIVATE_NAME.test(host);
}

function away(address: string, why: string): MoorageError {
  const host = URL.parse(address)?.host ?? 'unknown';
  return new MoorageError('issuer_away', `What vouches for this credential cannot be asked now: "${host}": ${why}.`);
}
