/**
 * Owns whose view of a server a stored answer shows, and what a client was told when its session opened.
 *
 * Servers register tools by what the client declares, so revision and capabilities are part of a view. The client's name
 * is not: a copy for each version of each client would mean no copy for most of them.
 */
import { META } from '../../shared/rev-2026-07-28.ts';
import type { Kind } from './question.ts';
import { KINDS } from './question.ts';

export interface View {
  readonly server: string;
  readonly principal: string;
  /** Digest of the revision that the client asked for and of the capabilities that it declared. */
  readonly variant: string;
}

/** What an InitializeResult told a client. */
export interface Told {
  /** Digest of the whole result. */
  readonly digest: string;
  readonly protocolVersion: string;
  readonly logging: boolean;
  /** Lists whose changes the server promised to announce. */
  readonly listChanged: readonly Kind[];
}

/** `variant` of a client, from `params` of its initialize as JSON text. */
export async function variantOf(initialize: string): Promise<string> {
  const { protocolVersion, capabilities } = JSON.parse(initialize) as Record<string, unknown>;
  return await digestOf([protocolVersion, capabilities]);
}

/** The view of a lane's client, by `_meta` of its requests. */
export async function laneView(
  { server, principal }: Omit<View, 'variant'>,
  meta: Readonly<Record<string, unknown>>,
): Promise<View> {
  const declared = { protocolVersion: meta[META.revision], capabilities: meta[META.clientCapabilities] };
  return { server, principal, variant: await variantOf(JSON.stringify(declared)) };
}

/** What a result of initialize tells; null for one without a version, which is none. */
export async function toldBy(result: Record<string, unknown>): Promise<Told | null> {
  const { protocolVersion } = result;
  if (typeof protocolVersion !== 'string') return null;
  const capabilities = asRecord(result.capabilities);
  return {
    digest: await digestOf(result),
    protocolVersion,
    logging: 'logging' in capabilities,
    listChanged: KINDS.filter((kind) => asRecord(capabilities[kind]).listChanged === true),
  };
}

/** Hexadecimal SHA-256 of a JSON value, whatever the order of its members. */
async function digestOf(value: unknown): Promise<string> {
  const bytes = new TextEncoder().encode(JSON.stringify(value, sorted));
  const digest = new Uint8Array(await crypto.subtle.digest('SHA-256', bytes));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, '0')).join('');
}

function sorted(_key: string, value: unknown): unknown {
  if (value === null || typeof value !== 'object' || Array.isArray(value)) return value;
  return Object.fromEntries(Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1)));
}

const asRecord = (value: unknown): Record<string, unknown> =>
  value !== null && typeof value === 'object' ? (value as Record<string, unknown>) : {};
