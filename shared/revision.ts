/** Owns the names of MCP revisions: which ones exist, which are spoken here, and how one is chosen. */

/** Revisions with sessions that are terminated at the edge, newest first. */
export const LEGACY_REVISIONS = ['2025-11-25', '2025-06-18', '2025-03-26', '2024-11-05'] as const;
export type LegacyRevision = (typeof LEGACY_REVISIONS)[number];

/** What a missing `MCP-Protocol-Version` header means (2025-06-18, basic/transports, "Protocol Version Header"). */
export const ASSUMED_REVISION: LegacyRevision = '2025-03-26';

export const isLegacyRevision = (value: unknown): value is LegacyRevision =>
  (LEGACY_REVISIONS as readonly unknown[]).includes(value);

/**
 * Whether clients of a revision take an event with an id and empty data (2025-11-25, basic/transports, "Sending Messages").
 * Older ones fail on it: they parse every event's data as JSON. Revisions are dates, so they compare as text.
 */
export const takesPriming = (revision: string | null | undefined): boolean =>
  revision !== null && revision !== undefined && revision >= '2025-11-25';

/** `_meta` key by which a request of the stateless era (2026-07-28) claims its revision. */
export const REVISION_META_KEY = 'io.modelcontextprotocol/protocolVersion';

/** The revision without sessions. */
export const MODERN_REVISION = '2026-07-28';
