/**
 * The client of the TypeScript SDK v2 in its moods: `runProbing` asks with `server/discover` and falls back to
 * `initialize`, `runLegacy` does not ask, which is the SDK's default, `runModern` knows only 2026-07-28, and `runSse`
 * speaks the transport of 2024-11-05.
 */
import {
  Client,
  type ClientOptions,
  SSEClientTransport,
  StreamableHTTPClientTransport,
} from '@modelcontextprotocol/client';
import type { Call, Outcome, Run } from './client.ts';
import { namesOf, textOf } from './client.ts';

type Mode = NonNullable<NonNullable<ClientOptions['versionNegotiation']>['mode']>;

async function use(mode: Mode, transport: Parameters<Client['connect']>[0], { tool, args }: Call): Promise<Outcome> {
  const client = new Client({ name: 'moorage-judge', version: '1.0.0' }, { versionNegotiation: { mode } });
  try {
    await client.connect(transport);
    const tools = namesOf(await client.listTools());
    const text = textOf(await client.callTool({ name: tool, arguments: args }));
    if (transport instanceof StreamableHTTPClientTransport) await transport.terminateSession();
    return { tools, text };
  } finally {
    await client.close();
  }
}

const streamable =
  (mode: Mode): Run =>
  (url, call, { headers = {} } = {}) =>
    use(mode, new StreamableHTTPClientTransport(new URL(url), { requestInit: { headers } }), call);

export const runProbing = streamable('auto');
export const runLegacy = streamable('legacy');
export const runModern = streamable({ pin: '2026-07-28' });

export const runSse: Run = (url, call, { headers = {} } = {}) =>
  use('legacy', new SSEClientTransport(new URL(url), { requestInit: { headers } }), call);
