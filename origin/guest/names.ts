/** Which names the machine's resolver knows, and with which addresses. Pure. */

/** An entry of `egress`, as the host sends it: see `shared/config/egress.ts`. */
export interface AllowRule {
  readonly kind: 'name' | 'under' | 'any' | 'network';
  readonly host: string;
  readonly port: number;
}

/** The ports at which a name is listed, each once. */
export function portsOf(rules: readonly AllowRule[], name: string): number[] {
  const listed = rules.filter(({ kind, host }) => {
    return kind === 'any' || (kind === 'name' && name === host) || (kind === 'under' && name.endsWith(`.${host}`));
  });
  return [...new Set(listed.map(({ port }) => port))];
}

const FIRST = 0x7f40_0000;
const COUNT = 0x40_0000;

/** The n-th address of 127.64.0.0/10, without those that end in 0 or 255, which some programs refuse. */
export function nameAddress(n: number): string {
  const usable = n % ((COUNT / 256) * 254);
  const value = FIRST + Math.floor(usable / 254) * 256 + 1 + (usable % 254);
  return [24, 16, 8, 0].map((shift) => (value >>> shift) & 0xff).join('.');
}
