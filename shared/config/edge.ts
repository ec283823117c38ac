/**
 * Owns the `edge` block of `moorage.jsonc`: where the local edge listens, and how it is reached.
 *
 * Invariant, held together with `auth`: whatever others can reach asks them who they are (`exposureProblems`).
 */
import { z } from 'zod';
import { type AuthConfig, admitsOutsiders } from './auth.ts';
import { isLoopbackHost } from './fetched.ts';

const host = z
  .union([z.ipv4(), z.ipv6(), z.literal('localhost')], {
    error: 'write an IP address such as "127.0.0.1" or "0.0.0.0"',
  })
  .default('127.0.0.1');

/** An origin (RFC 6454), written as browsers write it. */
const origin = z
  .string()
  .refine(
    (text) => /^https?:/.test(text) && URL.parse(text)?.origin === text,
    'write an origin such as "https://app.example.com"',
  );

const publicUrl = z
  .string()
  .transform((text) => text.replace(/\/$/, ''))
  .pipe(origin);

const tls = z.strictObject({
  /** PEM files, relative to the configuration: the certificate with its chain, and its key. */
  cert: z.string().min(1),
  key: z.string().min(1),
  /** Authorities whose certificates clients may show. */
  clientCa: z.string().min(1).optional(),
});

const streams = z.strictObject({
  /** Streams of calls that say nothing for this long are ended, and clients of 2025-11-25 come back for the rest. */
  endIdleAfterMs: z
    .number()
    .int()
    .min(50, 'streams are ended after 50 ms of silence or more')
    .max(24 * 60 * 60 * 1000)
    .optional(),
});

export const edgeSchema = z.strictObject({
  host,
  port: z.number().int().min(0).max(65535).default(8787),
  /** How clients reach this edge: scheme, name and port. Tokens are issued for it. */
  publicUrl: publicUrl.optional(),
  /** Further names by which it may be called (`Host`). */
  allowedHosts: z.array(z.string().min(1).max(253)).max(50).optional(),
  /** Web pages of these origins may use it. */
  allowedOrigins: z.array(origin).max(100).optional(),
  tls: tls.optional(),
  streams: streams.optional(),
});

export type EdgeConfig = z.infer<typeof edgeSchema>;

export const DEFAULT_EDGE: EdgeConfig = { host: '127.0.0.1', port: 8787 };

/** Whether an address is reached from the same host only. */
export const isLoopbackAddress = (address: string): boolean =>
  address === 'localhost' || address === '::1' || /^127\./.test(address);

/** What is wrong with an edge that others can reach, and what to do. */
export function exposureProblems(edge: EdgeConfig, auth: AuthConfig): string[] {
  const { host, publicUrl, tls } = edge;
  const bound = !isLoopbackAddress(host);
  const published = publicUrl !== undefined && !isLoopbackHost(new URL(publicUrl).hostname);
  const problems: string[] = [];
  if (auth.mtls && tls?.clientCa === undefined) {
    problems.push('auth.mtls: set edge.tls with "clientCa", the authority that signed your clients\' certificates');
  }
  if (!bound && !published) return problems;
  const why = bound ? `edge.host: others can reach ${host}` : `edge.publicUrl: others can reach ${publicUrl}`;
  if (!admitsOutsiders(auth)) {
    problems.push(
      `${why}, and nothing tells who they are. Set "auth", such as { "tokens": true }, or serve 127.0.0.1 alone`,
    );
  } else if (auth.loopback) {
    problems.push(`auth.loopback: ${why.split(': ')[1]}, who might pass for callers of this host. Remove it`);
  }
  if (bound && publicUrl === undefined) {
    problems.push('edge.publicUrl: say how clients reach this edge, such as "https://mcp.example.com"');
  }
  return problems;
}

/** What deserves a word to the owner, and does not keep the edge from serving. */
export function exposureWarnings({ host, tls }: EdgeConfig): string[] {
  if (isLoopbackAddress(host) || tls) return [];
  return [
    `edge.host: what is said to ${host} crosses the network in clear, tokens too, unless something in front ends TLS. Set edge.tls`,
  ];
}
