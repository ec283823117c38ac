/**
 * Owns the reading of a recorded conversation: which revision of the protocol a client settled on, and how it got there.
 * Pure: what counts is what was on the wire, not what a client's documentation says.
 */
import type { Exchange } from '../conformance/proxy.ts';

export type Spoken = Pick<Exchange, 'method' | 'requestBody' | 'status' | 'responseHeaders' | 'responseBody'>;

const claimKey = 'io.modelcontextprotocol/protocolVersion';

interface Message {
  method?: string;
  params?: { _meta?: Record<string, unknown> };
  result?: { protocolVersion?: unknown };
}

/** Such as `2026-07-28`, `2025-11-25, probes first` or `2024-11-05 (HTTP+SSE)`; undefined when nothing was settled. */
export function eraOf(exchanges: readonly Spoken[]): string | undefined {
  const posts = exchanges.filter(({ method }) => method === 'POST');
  const said = posts.map((exchange) => ({ exchange, message: parse(exchange.requestBody) }));
  const asked = said.some(({ message }) => message?.method === 'server/discover');

  const opened = said.find(({ message }) => message?.method === 'initialize')?.exchange;
  const endpoint = exchanges.find(
    ({ method, responseBody }) => method === 'GET' && /^event: ?endpoint/m.test(responseBody),
  );
  if (endpoint) return `${answered(endpoint.responseBody) ?? '2024-11-05'} over HTTP+SSE`;

  const version = opened?.status === 200 ? answered(opened.responseBody) : undefined;
  if (version) return asked ? `${version}, probes first` : version;

  for (const { exchange, message } of said) {
    const claim = message?.params?._meta?.[claimKey];
    if (typeof claim === 'string' && exchange.status === 200) return claim;
  }
  return undefined;
}

/** The revision in an answer to initialize, in JSON or in an event stream. */
function answered(body: string): string | undefined {
  for (const line of body.split('\n')) {
    const version = parse(line.replace(/^data: ?/, ''))?.result?.protocolVersion;
    if (typeof version === 'string') return version;
  }
  return undefined;
}

function parse(text: string): Message | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return value !== null && typeof value === 'object' ? (value as Message) : undefined;
  } catch {
    // Empty bodies, comments and event names are no messages.
    return undefined;
  }
}
