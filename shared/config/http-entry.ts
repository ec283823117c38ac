/** Owns entries of servers that an origin reaches over HTTP: their schema and its defaults. */
import { z } from 'zod';
import { clientOnly, sharing } from './common.ts';
import { output } from './output.ts';
import { areReferencesWhole } from './secrets.ts';
import { discovery } from './sleep.ts';

const TRANSPORTS = {
  auto: 'auto',
  http: 'http',
  'streamable-http': 'http',
  streamableHttp: 'http',
  sse: 'sse',
} as const;
const transport = z.enum(Object.keys(TRANSPORTS) as (keyof typeof TRANSPORTS)[], {
  error: 'use "auto" (Streamable HTTP, then SSE), "http" or "sse"',
});

export const httpServer = z
  .strictObject({
    runtime: z.literal('http').default('http'),
    /** Address as the origin reaches it, such as a container's port on loopback. */
    url: z
      .url({ protocol: /^https?$/, error: 'write an address such as "http://127.0.0.1:3000/mcp"' })
      .refine((url) => !hasCredentials(url), 'put credentials into "headers", not into the address'),
    /** Sent with every request. Values may hold `${secret:NAME}`; they stay at the origin. */
    headers: z
      .record(
        z
          .string()
          .regex(/^[A-Za-z0-9!#$%&'*+.^_`|~-]+$/, 'this is not a name of an HTTP header')
          .refine((name) => !OWN_HEADERS.has(name.toLowerCase()), 'the router sets this header itself'),
        z
          .string()
          .regex(/^[\x20-\x7e\t]*$/, 'an HTTP header holds visible ASCII characters only')
          .refine(areReferencesWhole, `write a reference to a secret as "\${secret:NAME}"`),
      )
      .default({}),
    transport: transport.optional(),
    /** How MCP clients spell `transport`. */
    type: transport.optional(),
    process: sharing,
    ...discovery,
    ...output,
    ...clientOnly,
  })
  .refine(({ transport, type }) => !transport || !type || TRANSPORTS[transport] === TRANSPORTS[type], {
    path: ['type'],
    error: '"transport" says otherwise: give one of the two',
  })
  .transform(({ transport, type, ...entry }) => ({ ...entry, transport: TRANSPORTS[transport ?? type ?? 'auto'] }));

/** Headers that the transport decides (2025-11-25 and 2026-07-28, basic/transports). */
const OWN_HEADERS: ReadonlySet<string> = new Set([
  'accept',
  'connection',
  'content-length',
  'content-type',
  'host',
  'last-event-id',
  'mcp-method',
  'mcp-name',
  'mcp-protocol-version',
  'mcp-session-id',
  'transfer-encoding',
]);

function hasCredentials(url: string): boolean {
  const parsed = URL.parse(url);
  return parsed !== null && (parsed.username !== '' || parsed.password !== '');
}

export type HttpServer = z.infer<typeof httpServer>;
