/**
 * Owns what `egress` of a server says: the hosts and ports that its machine may connect to, parsed to one canonical form.
 *
 * An entry is `HOST:PORT`. HOST is a name (`api.github.com`), all names under one (`*.npmjs.org`, at any depth, not
 * npmjs.org itself), every name (`*`), an address (`10.0.0.5`, `[2001:db8::5]`) or a network (`10.0.0.0/8`).
 * Invariants: names are lower case ASCII (IDNA) without a final dot and can never be read as an address; addresses have one
 * spelling (an IPv4 address in IPv6 clothes is the IPv4 address). What an entry allows is decided in `origin/egress/decide.ts`.
 */
import ipaddr from 'ipaddr.js';
import { z } from 'zod';

export interface EgressRule {
  readonly kind: 'name' | 'under' | 'any' | 'network';
  /** `api.github.com`; `npmjs.org` of `*.npmjs.org`; `*`; `10.0.0.5` or `10.0.0.0/8`, IPv6 without brackets. */
  readonly host: string;
  readonly port: number;
}

const LABEL = /^[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?$/;
const MAX_NAME = 253;
/** Wider networks would take in what nobody means: this host itself, or all private ranges. */
const WIDEST = { ipv4: 8, ipv6: 16 } as const;
const MAX_RULES = 256;

/** Whether a text is a name that DNS could know, in the canonical spelling: never something that reads as an address. */
export function isHostName(text: string): boolean {
  const labels = text.split('.');
  // WHATWG URL, "ends in a number": whatever does is an IPv4 address in one of its spellings, or nothing.
  const last = labels.at(-1) ?? '';
  return text.length <= MAX_NAME && labels.every((label) => LABEL.test(label)) && !/^(\d+|0x[0-9a-f]*)$/.test(last);
}

/** An address in its one spelling; undefined for anything else, also for the spellings that only inet_aton knows. */
export function canonicalAddress(text: string): string | undefined {
  if (!ipaddr.IPv4.isValidFourPartDecimal(text) && !(ipaddr.IPv6.isValid(text) && !text.includes('%')))
    return undefined;
  return ipaddr.process(text).toString();
}

/** One entry. @throws Error whose message tells what to write. */
export function parseEgressRule(text: string): EgressRule {
  if (text.includes('://')) throw new Error(`"${text}": write HOST:PORT alone, such as "api.github.com:443"`);
  const split = /^(.*):([0-9]{1,5})$/.exec(text);
  const [, written = '', digits = ''] = split ?? [];
  const port = Number(digits);
  if (split === null || port < 1 || port > 65_535)
    throw new Error(`"${text}" names no port: write HOST:PORT, such as "api.github.com:443"`);
  const bare = /^\[(.*)\]$/.exec(written)?.[1];
  if (bare === undefined && written.includes(':'))
    throw new Error(`"${text}": write an IPv6 address in brackets, such as "[2001:db8::5]:443"`);
  const host = bare ?? written;
  if (host.includes('/')) return { kind: 'network', host: network(host), port };
  const address = canonicalAddress(host);
  if (address !== undefined) return { kind: 'network', host: address, port };
  if (bare !== undefined) throw new Error(`"${text}": "${bare}" is not an IPv6 address`);
  if (host === '*') return { kind: 'any', host, port };
  if (host.startsWith('*.')) return { kind: 'under', host: name(host.slice(2)), port };
  return { kind: 'name', host: name(host), port };
}

function network(text: string): string {
  const [base = '', prefix = ''] = text.split('/');
  const address = canonicalAddress(base);
  if (address === undefined || !/^[0-9]{1,3}$/.test(prefix) || !ipaddr.isValidCIDR(text))
    throw new Error(`"${text}" is not a network: write one such as "10.0.0.0/8" or "[2001:db8::/32]"`);
  const parsed = ipaddr.parse(base);
  // ::ffff:10.0.0.0/104 would be one that no address matches.
  if (parsed.toString() !== address) throw new Error(`"${text}": write the IPv4 network that it is`);
  const kind = parsed.kind();
  if (Number(prefix) < WIDEST[kind])
    throw new Error(
      `"${text}" is wider than /${WIDEST[kind]}: name the networks, or "*" for every name in the internet`,
    );
  const first = (kind === 'ipv4' ? ipaddr.IPv4 : ipaddr.IPv6).networkAddressFromCIDR(text).toString();
  if (first !== address) throw new Error(`"${text}" begins amid a network: write "${first}/${Number(prefix)}"`);
  return `${address}/${Number(prefix)}`;
}

function name(text: string): string {
  if (text.includes('*')) throw new Error(`"${text}": "*" stands for whole labels at the start, as in "*.example.com"`);
  // What a URL would take for something other than a host name must not reach the parser, which knows how to read it.
  const plain = /[\s/\\?#@:%[\]^|<>]/.test(text) ? undefined : URL.parse(`http://${text.replace(/\.$/, '')}`)?.hostname;
  if (plain !== undefined && ipaddr.IPv4.isValidFourPartDecimal(plain))
    throw new Error(`"${text}": write the address as ${plain}`);
  if (plain === undefined || !isHostName(plain))
    throw new Error(`"${text}" is not a host name: write one such as "api.github.com" or "*.npmjs.org"`);
  if (plain === 'localhost' || plain.endsWith('.localhost'))
    throw new Error(`"${text}" is the machine itself: write 127.0.0.1 for the host's own loopback`);
  return plain;
}

/** How an entry is written in its canonical form. */
export function egressRuleText({ kind, host, port }: EgressRule): string {
  const written = kind === 'under' ? `*.${host}` : host.includes(':') ? `[${host}]` : host;
  return `${written}:${port}`;
}

const rule = z.string().transform((text, context): EgressRule => {
  try {
    return parseEgressRule(text);
  } catch (error) {
    context.addIssue({ code: 'custom', message: (error as Error).message });
    return z.NEVER;
  }
});

/** `egress` of a server: `["api.github.com:443", "*.npmjs.org:443"]`. */
export const egress = z.array(rule).max(MAX_RULES);

/** The entries of all servers of a machine, each once: the machine is the boundary, so what one may all may. */
export function unionOf(lists: readonly (readonly EgressRule[])[]): EgressRule[] {
  return [...new Map(lists.flat().map((one) => [egressRuleText(one), one])).values()];
}
