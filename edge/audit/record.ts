/**
 * Owns what of a request is written down, and that nobody waits for it.
 *
 * Invariant: an isolate hands on at most `MAX_DENIED_A_SECOND` denials; the rest is counted, and told with the next one.
 */
import type { AuditEvent } from '../../shared/audit.ts';
import { type ErrorCode, MoorageError } from '../../shared/errors.ts';
import type { Principal } from '../../shared/principal.ts';
import type { Env } from '../env.ts';
import { requestAddress } from '../limits/limit.ts';
import { auditObjectOf } from './object.ts';

/** Whose request it is that something is written down of. */
export interface Audited {
  readonly env: Env;
  readonly request: Request;
  readonly waitUntil: (promise: Promise<unknown>) => void;
  readonly principal?: Principal | undefined;
  readonly server?: string | undefined;
}

/** Codes that mean: somebody wanted what is not theirs. */
const DENIALS: ReadonlySet<ErrorCode> = new Set<ErrorCode>([
  'authentication_required',
  'insufficient_scope',
  'forbidden_origin',
  'forbidden_server',
  'forbidden',
  'grant_invalid',
  'rate_limited',
]);
const MAX_DENIED_A_SECOND = 50;
/** Credentials whose use this isolate has told; forgotten all at once when there are too many. */
const told = new Set<string>();
const MAX_TOLD = 10_000;

let second = 0;
let denied = 0;
let unrecorded = 0;

/** Writes an event down, with who did it and from where. */
export function record(audited: Audited, event: Pick<AuditEvent, 'kind' | 'action' | 'detail'>): void {
  const { env, request, principal, server, waitUntil } = audited;
  const whole: AuditEvent = {
    ...event,
    subject: principal?.subject,
    credential: principal && credentialOf(principal),
    server: server?.slice(0, 63),
    address: requestAddress(request) ?? undefined,
  };
  waitUntil(
    auditObjectOf(env)
      .add(whole)
      .catch((error: unknown) => console.error('an audit record was lost', event.kind, event.action, error)),
  );
}

/** Writes down that something was refused, if that was for want of a right. */
export function recordDenial(audited: Audited, thrown: unknown): void {
  if (!(thrown instanceof MoorageError) || !DENIALS.has(thrown.code)) return;
  const now = Math.floor(Date.now() / 1000);
  if (now !== second) {
    second = now;
    denied = 0;
  }
  if (++denied > MAX_DENIED_A_SECOND) {
    unrecorded++;
    return;
  }
  const detail = { why: thrown.message.slice(0, 300), ...(unrecorded > 0 ? { unrecorded } : {}) };
  unrecorded = 0;
  record(audited, { kind: 'denied', action: thrown.code, detail });
}

/** Writes down that a credential is used: the first time in a day. The owner's acts are written down one by one. */
export function recordLogin(audited: Audited & { readonly principal: Principal }): void {
  const { kind, id } = audited.principal.credential;
  if (id === undefined || kind === 'owner') return;
  const credential = credentialOf(audited.principal);
  if (told.has(credential)) return;
  if (told.size >= MAX_TOLD) told.clear();
  told.add(credential);
  record(audited, { kind: 'login', action: kind });
}

const credentialOf = ({ credential }: Principal): string =>
  credential.id === undefined ? credential.kind : `${credential.kind}:${credential.id}`;
