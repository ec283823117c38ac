/**
 * Owns which address a request comes from, for counting before anybody is authenticated. Pure.
 *
 * Cloudflare says it in a header that no client can set there. A workerd of one's own knows its peer; only one on the same
 * host, a proxy or tunnel in front, is believed about whom it speaks for. The attack: a header of the client's own that
 * makes every request come from somewhere else.
 */
import ipaddr from 'ipaddr.js';

/** `connected` is who connected, as far as the runtime tells: an address, with or without its port. Null where it cannot be known. */
export function addressOf(headers: Headers, connected: string | null): string | null {
  const peer = connected === null ? null : withoutPort(connected);
  const said = headers.get('cf-connecting-ip') ?? headers.get('x-forwarded-for')?.split(',').at(-1) ?? null;
  if (peer === null) return networkOf(headers.get('cf-connecting-ip'));
  return networkOf(isLocal(peer) ? (said ?? peer) : peer);
}

/** workerd tells `203.0.113.9:50000` and `[2001:db8::1]:50000`. */
function withoutPort(peer: string): string {
  const [, v6, v4] = /^\[(.*)\](?::\d+)?$|^([\d.]+):\d+$/.exec(peer) ?? [];
  return v6 ?? v4 ?? peer;
}

/** The address itself, or the network that one customer gets in IPv6 (RFC 6177: 64 bits at least). */
function networkOf(text: string | null): string | null {
  const bare = text?.trim() ?? '';
  if (!ipaddr.isValid(bare)) return null;
  // Addresses of IPv4 that are written in IPv6 become what they are.
  const address = ipaddr.process(bare);
  if (address instanceof ipaddr.IPv4) return address.toString();
  return `${(address as ipaddr.IPv6).parts
    .slice(0, 4)
    .map((part) => part.toString(16))
    .join(':')}::/64`;
}

function isLocal(peer: string): boolean {
  // A Unix socket has no address: whoever connects to it is on this host.
  return !ipaddr.isValid(peer) || ipaddr.process(peer).range() === 'loopback';
}
