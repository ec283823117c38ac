/**
 * Owns who may use what: one pure function from the rules of `access`, a caller and what it wants to use, to a decision
 * and how it came about.
 *
 * Invariants: without `access` everybody who is authenticated may use everything; with it nothing but what a rule allows;
 * a rule that denies wins, wherever it stands; names are compared exactly (`glob.ts`); nothing here asks whether what is
 * named exists, so no decision tells it.
 *
 * A rule that names none of tools, prompts and resources is about a server with all it has; one that names some is about
 * those alone.
 */
import type { Access, AccessRule, Constraint } from './config/access.ts';
import { passes } from './glob.ts';
import type { Principal } from './principal.ts';

/** What is to be used. */
export type Use =
  /** The server at all: to open a session, to ask for a list. */
  | { readonly kind: 'server'; readonly server: string }
  /** Without `arguments`: with whichever of them are allowed, as for a list. */
  | { readonly kind: 'tool'; readonly server: string; readonly name: string; readonly arguments?: unknown }
  | { readonly kind: 'prompt'; readonly server: string; readonly name: string }
  /** `name`: a URI, or the template of some. */
  | { readonly kind: 'resource'; readonly server: string; readonly name: string }
  /** A request that is about none of these, such as an extension's. */
  | { readonly kind: 'other'; readonly server: string };

/** Why a rule applies, or the first thing that keeps it from applying. */
export type Reason = 'applies' | 'caller' | 'server' | 'kind' | 'name' | `argument ${string}`;

export interface TraceEntry {
  /** Index within `access`. */
  readonly rule: number;
  readonly effect: AccessRule['effect'];
  readonly reason: Reason;
}

export interface Decision {
  readonly allow: boolean;
  /** One entry a rule, in their order; empty where there is no `access`. */
  readonly trace: readonly TraceEntry[];
}

/** Whether `principal` may. `access` undefined: there are no rules. */
export function decide(access: Access | undefined, principal: Principal, use: Use): Decision {
  if (access === undefined) return { allow: true, trace: [] };
  const trace = access.map((rule, index) => ({
    rule: index,
    effect: rule.effect,
    reason: reasonOf(rule, principal, use),
  }));
  const applies = (effect: AccessRule['effect']) =>
    trace.some((entry) => entry.effect === effect && entry.reason === 'applies');
  return { allow: applies('allow') && !applies('deny'), trace };
}

/** Whether nothing of a server is kept from the principal, so that nothing needs to be looked at one by one. */
export function isUnrestricted(access: Access | undefined, principal: Principal, server: string): boolean {
  if (access === undefined) return true;
  const about = access.filter((rule) => isMeant(rule, principal) && passes(server, rule.servers));
  return about.some(isWhole) && about.every(({ effect }) => effect === 'allow');
}

function reasonOf(rule: AccessRule, principal: Principal, use: Use): Reason {
  if (!isMeant(rule, principal)) return 'caller';
  if (!passes(use.server, rule.servers)) return 'server';
  if (isWhole(rule)) return 'applies';
  // A server is there for whoever may use something of it, and gone only when all of it is denied.
  if (use.kind === 'server') return rule.effect === 'allow' ? 'applies' : 'kind';
  if (use.kind === 'other') return 'kind';
  const names = { tool: rule.tools, prompt: rule.prompts, resource: rule.resources }[use.kind];
  if (names === undefined) return 'kind';
  if (!isNamed(use, names, rule.effect)) return 'name';
  if (use.kind !== 'tool' || use.arguments === undefined) return 'applies';
  const failed = Object.entries(rule.arguments ?? {}).find(
    ([path, must]) => !holds(must, valueAt(use.arguments, path)),
  );
  return failed ? `argument ${failed[0]}` : 'applies';
}

const isWhole = ({ tools, prompts, resources }: AccessRule): boolean =>
  tools === undefined && prompts === undefined && resources === undefined;

function isNamed(use: Extract<Use, { name: string }>, names: readonly string[], effect: AccessRule['effect']): boolean {
  if (use.kind === 'resource' && climbs(use.name)) {
    // The attack: file:///public/../secret, which has the form of one thing and is another.
    return effect === 'deny' || names.every((glob) => glob === '*');
  }
  return passes(use.name, names);
}

function isMeant({ who }: AccessRule, principal: Principal): boolean {
  return who.some((one) => {
    if (one === '*') return true;
    const at = one.indexOf(':');
    const [kind, value] = [one.slice(0, at), one.slice(at + 1)];
    switch (kind) {
      case 'group':
        return principal.groups.includes(value);
      case 'sub':
        return principal.subject === value;
      case 'token':
        return principal.credential.kind === 'token' && principal.name === value;
      default: {
        const equals = value.indexOf('=');
        return hasClaim(principal.claims ?? {}, value.slice(0, equals), value.slice(equals + 1));
      }
    }
  });
}

function hasClaim(claims: Readonly<Record<string, unknown>>, name: string, expected: string): boolean {
  if (!Object.hasOwn(claims, name)) return false;
  const values: unknown = claims[name];
  return (Array.isArray(values) ? values : [values]).some(
    (value) => ['string', 'number', 'boolean'].includes(typeof value) && String(value) === expected,
  );
}

function holds(must: Constraint, value: unknown): boolean {
  if (value === undefined) return must.optional === true;
  if (must.equals !== undefined && value !== must.equals) return false;
  if (must.oneOf !== undefined && !must.oneOf.some((one) => one === value)) return false;
  if (must.glob !== undefined && !(typeof value === 'string' && !climbs(value) && passes(value, must.glob)))
    return false;
  if (must.max !== undefined && !(typeof value === 'number' && value <= must.max)) return false;
  return must.min === undefined || (typeof value === 'number' && value >= must.min);
}

/** The value at a JSON pointer (RFC 6901) or a dotted path; own members only, so that no prototype answers. */
function valueAt(args: unknown, path: string): unknown {
  const keys = path.startsWith('/')
    ? path
        .slice(1)
        .split('/')
        .map((key) => key.replaceAll('~1', '/').replaceAll('~0', '~'))
    : path.split('.');
  return keys.reduce<unknown>(
    (node, key) =>
      node !== null && typeof node === 'object' && Object.hasOwn(node, key)
        ? (node as Record<string, unknown>)[key]
        : undefined,
    args,
  );
}

/** Whether a path or URI has a segment that leads upwards, also percent-encoded. */
function climbs(text: string): boolean {
  const plain = text.replace(/%2e/gi, '.').replace(/%2f/gi, '/').replace(/%5c/gi, '\\');
  return /(?:^|[\\/])\.\.(?:[\\/?#]|$)/.test(plain);
}
