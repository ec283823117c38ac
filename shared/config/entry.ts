/** Owns one entry of `mcpServers`: by which runtime's schema it is read, and where it belongs. */
import { z } from 'zod';
import { clientOnly } from './common.ts';
import { type HttpServer, httpServer } from './http-entry.ts';
import type { Isolation } from './isolation.ts';
import { type MachineServer, machineServer } from './machine-entry.ts';
import { output } from './output.ts';

const edgeServer = z.strictObject({
  type: z.unknown().optional(),
  runtime: z.literal('edge'),
  /** Module whose default export makes an MCP server; a path relative to the configuration. */
  tools: z.string().min(1),
  ...output,
  ...clientOnly,
});

export type EdgeServer = z.infer<typeof edgeServer>;
/** What an origin serves. */
export type OriginServer = MachineServer | HttpServer;
export type ServerEntry = OriginServer | EdgeServer;
export const isEdgeServer = (entry: ServerEntry): entry is EdgeServer => entry.runtime === 'edge';
export const isHttpServer = (entry: ServerEntry): entry is HttpServer => entry.runtime === 'http';

/** An entry as it is written. */
export function parseEntry(entry: unknown): z.ZodSafeParseResult<ServerEntry> {
  const shape: Record<string, unknown> = typeof entry === 'object' && entry !== null ? { ...entry } : {};
  if (shape.runtime === 'edge') return edgeServer.safeParse(entry);
  const isHttp = shape.runtime === 'http' || (shape.runtime === undefined && 'url' in shape && !('command' in shape));
  return isHttp ? httpServer.safeParse(entry) : machineServer.safeParse(entry);
}

/**
 * The machine that a server runs in: the one it names, else one of its own, named after it. A server that is reached over
 * HTTP has none; its key cannot be that of a machine.
 */
export function machineOf(name: string, entry: OriginServer): string {
  if (isHttpServer(entry)) return `http:${name.toLowerCase()}`;
  return entry.machine ?? name.toLowerCase().replaceAll(/[^a-z0-9-]/g, '-');
}

/** What gets a machine of its own. */
export const isolationOf = (entry: OriginServer): Isolation =>
  isHttpServer(entry) ? 'server' : (entry.isolation ?? 'server');
