/**
 * The baseline: the fixture served by the SDK alone, with no router in between. Sessions, resumption and both eras at
 * one URL, so that any difference behind the router is the router's.
 */
import { pathToFileURL } from 'node:url';
import type { EventStore, JSONRPCMessage, McpServer, ServerNotifier } from '@modelcontextprotocol/server';
import {
  createMcpHandler,
  hostHeaderValidationResponse,
  isInitializeRequest,
  isLegacyRequest,
  localhostAllowedHostnames,
  localhostAllowedOrigins,
  originValidationResponse,
  WebStandardStreamableHTTPServerTransport,
} from '@modelcontextprotocol/server';
import { createFixture } from './fixture.ts';
import { listen } from './listen.ts';

export interface Direct {
  url: string;
  close(): Promise<void>;
}

export interface DirectOptions {
  /** 0, the default, picks a free port. */
  port?: number;
  /** Serve the sessions of 2025 only, as a server built before 2026-07-28 does. */
  legacyOnly?: boolean;
}

export async function serveDirect({ port = 0, legacyOnly = false }: DirectOptions = {}): Promise<Direct> {
  const sessions = new Map<string, WebStandardStreamableHTTPServerTransport>();
  const modern = createMcpHandler(() => publishing(createFixture(), () => modern.notify), { legacy: 'reject' });

  const listener = await listen(async (request) => {
    const refused =
      hostHeaderValidationResponse(request, localhostAllowedHostnames()) ??
      originValidationResponse(request, localhostAllowedOrigins());
    if (refused) return refused;
    if (new URL(request.url).pathname !== '/mcp') return new Response('Not found', { status: 404 });
    if (legacyOnly || (await isLegacyRequest(request))) return serveSession(request, sessions);
    return modern.fetch(request);
  }, port);

  return {
    url: `http://localhost:${listener.port}/mcp`,
    async close() {
      await modern.close();
      await Promise.all([...sessions.values()].map((transport) => transport.close()));
      await listener.close();
    },
  };
}

async function serveSession(
  request: Request,
  sessions: Map<string, WebStandardStreamableHTTPServerTransport>,
): Promise<Response> {
  const id = request.headers.get('mcp-session-id');
  if (id) return sessions.get(id)?.handleRequest(request) ?? refusal(404, 'Session not found');
  if (request.method !== 'POST') return refusal(400, 'Mcp-Session-Id header is required');

  const parsedBody: unknown = await request
    .clone()
    .json()
    .catch(() => undefined);
  if (!isInitializeRequest(parsedBody)) return refusal(400, 'Mcp-Session-Id header is required');
  const transport = new WebStandardStreamableHTTPServerTransport({
    sessionIdGenerator: () => crypto.randomUUID(),
    eventStore: createEventStore(),
    retryInterval: 500,
    onsessioninitialized: (minted) => void sessions.set(minted, transport),
    onsessionclosed: (closed) => void sessions.delete(closed),
  });
  await createFixture().connect(transport);
  return transport.handleRequest(request, { parsedBody });
}

function refusal(status: number, message: string): Response {
  return Response.json({ jsonrpc: '2.0', error: { code: -32000, message }, id: null }, { status });
}

/** A per-request server reaches no stream but its own, so its list changes are published to the listening ones. */
function publishing(server: McpServer, notifier: () => ServerNotifier): McpServer {
  const send = server.server.notification.bind(server.server);
  server.server.notification = async (notification, options) => {
    switch (notification.method) {
      case 'notifications/tools/list_changed':
        return notifier().toolsChanged();
      case 'notifications/prompts/list_changed':
        return notifier().promptsChanged();
      case 'notifications/resources/list_changed':
        return notifier().resourcesChanged();
      case 'notifications/resources/updated':
        return notifier().resourceUpdated(String(notification.params?.uri));
      default:
        return send(notification, options);
    }
  };
  return server;
}

/** Keeps a session's events for as long as the session, in the order they were stored. */
function createEventStore(): EventStore {
  const events: { id: string; stream: string; message: JSONRPCMessage }[] = [];
  return {
    async storeEvent(stream, message) {
      const id = `${stream}/${events.length}`;
      events.push({ id, stream, message });
      return id;
    },
    async getStreamIdForEventId(id) {
      return events.find((event) => event.id === id)?.stream;
    },
    async replayEventsAfter(lastId, { send }) {
      const last = events.findIndex((event) => event.id === lastId);
      const stream = events[last]?.stream ?? '';
      // A priming event is stored as an empty message and is not sent again.
      const missed = events.slice(last + 1).filter((event) => event.stream === stream && 'jsonrpc' in event.message);
      for (const { id, message } of missed) await send(id, message);
      return stream;
    },
  };
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  const [port] = process.argv.slice(2).filter((argument) => !argument.startsWith('--'));
  const direct = await serveDirect({ port: Number(port ?? 0), legacyOnly: process.argv.includes('--legacy') });
  console.log(direct.url);
}
