/**
 * Decides what a machine may connect to. Pure: rules, what the guest asked for, and what a name resolved to.
 *
 * Two questions, in this order. May this target be tried (`decideTarget`)? An address only where an entry covers it; a name
 * where one names it. And, of a name, to which of its addresses (`usableAddresses`)? To public ones. Any other (loopback,
 * link-local and the metadata services there, private, shared, reserved, tunnels into these, the host's own) only where an
 * address entry with this port covers it as well: a name that somebody else controls must not open the network here.
 *
 * The guest is hostile: whatever it asks is text until it is a canonical address or a name.
 */
import ipaddr from 'ipaddr.js';
import { canonicalAddress, type EgressRule, isHostName } from '../../shared/config/egress.ts';

export type Target =
  | { readonly type: 'name'; readonly host: string; readonly port: number }
  | { readonly type: 'address'; readonly host: string; readonly port: number }
  | { readonly type: 'refused'; readonly why: string };

/** Reachable from everywhere by their number and still not of the internet: Azure's metadata and DNS for its guests. */
const NOT_PUBLIC: ReadonlySet<string> = new Set(['168.63.129.16']);

/** May the guest try this? `host` and `port` are as it sent them. */
export function decideTarget(rules: readonly EgressRule[], host: unknown, port: unknown): Target {
  if (typeof host !== 'string' || typeof port !== 'number' || !Number.isInteger(port) || port < 1 || port > 65_535)
    return { type: 'refused', why: 'this is no host and port' };
  const address = canonicalAddress(host);
  if (address !== undefined) {
    return isListed(rules, address, port)
      ? { type: 'address', host: address, port }
      : { type: 'refused', why: 'no entry of "egress" lists this address and port' };
  }
  const name = host.toLowerCase().replace(/\.$/, '');
  if (!isHostName(name)) return { type: 'refused', why: 'this is not a host name' };
  return rules.some((rule) => rule.port === port && namesHost(rule, name))
    ? { type: 'name', host: name, port }
    : { type: 'refused', why: 'no entry of "egress" lists this name and port' };
}

/** Of the addresses that a name resolved to, those to connect to, canonical; and of the others why not. */
export function usableAddresses(
  rules: readonly EgressRule[],
  port: number,
  resolved: readonly string[],
  own: readonly string[],
): { readonly use: readonly string[]; readonly refused: readonly string[] } {
  const use: string[] = [];
  const refused: string[] = [];
  for (const text of resolved) {
    const address = canonicalAddress(text);
    if (address === undefined) refused.push('something that is no address');
    else if (isListed(rules, address, port)) use.push(address);
    else if (own.some((one) => canonicalAddress(one) === address)) refused.push(`${address} (this host)`);
    else {
      const range = rangeOf(address);
      if (range === 'public') use.push(address);
      else refused.push(`${address} (${range})`);
    }
  }
  return { use: [...new Set(use)], refused };
}

function namesHost({ kind, host }: EgressRule, name: string): boolean {
  switch (kind) {
    case 'name':
      return name === host;
    case 'under':
      return name.endsWith(`.${host}`);
    case 'any':
      return true;
    case 'network':
      return false;
  }
}

function isListed(rules: readonly EgressRule[], address: string, port: number): boolean {
  const ip = ipaddr.parse(address);
  return rules.some((rule) => {
    if (rule.kind !== 'network' || rule.port !== port) return false;
    if (!rule.host.includes('/')) return rule.host === address;
    const [network, prefix] = ipaddr.parseCIDR(rule.host);
    return network.kind() === ip.kind() && ip.match(network, prefix);
  });
}

/** `public`, or the name of the special range that a canonical address lies in. */
function rangeOf(address: string): string {
  if (NOT_PUBLIC.has(address)) return 'metadata service';
  const ip = ipaddr.parse(address);
  const range = ip.range();
  if (ip.kind() === 'ipv4') return range === 'unicast' ? 'public' : range;
  // NAT64 (RFC 6052): on hosts without IPv4 all of the internet's IPv4 addresses look like this. What counts is inside.
  const bytes = ip.toByteArray();
  if (ip.match(ipaddr.parse('64:ff9b::'), 96)) return rangeOf(ipaddr.fromByteArray(bytes.slice(12)).toString());
  // Of the rest only what is global unicast today (RFC 4291, 2000::/3): what is not assigned is not public.
  if (range !== 'unicast') return range;
  return ((bytes[0] ?? 0) & 0xe0) === 0x20 ? 'public' : 'reserved';
}
