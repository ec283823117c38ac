/**
 * Owns how a server of the edge answers a request of the stateless era (2026-07-28): an instance for each request, served
 * by the SDK's own handler. Servers of another SDK are put behind one of this SDK first (`translated.ts`).
 *
 * What a server says about lists and resources concerns everybody who listens in its lane, in whatever isolate: it goes
 * to the Lane object, and from there to every `subscriptions/listen` stream. Each such stream has a WebSocket of its own,
 * because a request's context may not write to another's.
 */
import {
  createMcpHandler,
  McpServer,
  Server,
  type ServerEvent,
  type ServerEventBus,
} from '@modelcontextprotocol/server';
import { MoorageError } from '../../shared/errors.ts';
import type { JsonRpcRequest } from '../../shared/jsonrpc.ts';
import type { Envelope } from '../../shared/rev-2026-07-28.ts';
import type { Env } from '../env.ts';
import { joinListeners, laneOf } from '../lane/object.ts';
import { withStatus } from '../modern/status.ts';
import { changeIn } from './change.ts';
import type { EdgeServer, EdgeServerContext, EdgeServerFactory } from './instance.ts';
import { translated } from './translated.ts';

export interface ModernEdgeCall {
  readonly env: Env;
  readonly factory: EdgeServerFactory;
  /** `session` is the lane. */
  readonly context: EdgeServerContext;
  readonly request: JsonRpcRequest;
  readonly envelope: Envelope;
  /** As it came, its body read. */
  readonly http: Request;
  /** Aborted when the client leaves. */
  readonly signal: AbortSignal;
  readonly waitUntil: (promise: Promise<unknown>) => void;
}

type Publish = (event: ServerEvent) => void;

/** Answers one request. @throws MoorageError. */
export async function answerModernAtEdge(call: ModernEdgeCall): Promise<Response> {
  const { env, context, request, envelope, http, signal, waitUntil } = call;
  const lane = laneOf(env, context.session);
  const publish: Publish = (event) => waitUntil(lane.publish(JSON.stringify(event)));
  const made = await start(call);
  const native = made instanceof McpServer || made instanceof Server;
  const server = publishing(native ? made : await translated(() => made, context, envelope, publish), publish);
  const listening = request.method === 'subscriptions/listen';
  const socket = listening ? await joinListeners(env, context.session) : undefined;
  const handler = createMcpHandler(() => server, {
    legacy: 'reject',
    // Whoever holds the client's stream open does that.
    keepAliveMs: 0,
    bus: socket ? heardFrom(socket) : { publish, subscribe: () => () => {} },
    onerror: (error) => console.warn(`edge server ${context.server}: ${error.message}`),
  });
  // The end of the Lane object's WebSocket ends the stream in order, and the client listens anew.
  socket?.addEventListener('close', () => void handler.close());
  const response = await handler.fetch(withoutCredentials(http, signal), {
    parsedBody: request,
    // What a server may bind state to. There is no token: that is the edge's.
    authInfo: { token: '', clientId: context.principal, scopes: [] },
  });
  // The SDK knows which errors are its own; those of a translated server are told apart by their code alone.
  if (!native && isJson(response)) return await withStatus(response);
  if (response.status < 500) return response;
  await response.body?.cancel();
  throw new MoorageError('server_failed', `The edge server "${context.server}" failed.`);
}

async function start({ factory, context }: ModernEdgeCall): Promise<EdgeServer> {
  try {
    return await factory(context);
  } catch (thrown) {
    console.error(`edge server ${context.server} did not start`, thrown);
    throw new MoorageError('server_failed', `The edge server "${context.server}" could not be started.`);
  }
}

/** The events of `socket` as what the SDK's listen stream subscribes to. */
function heardFrom(socket: WebSocket): ServerEventBus {
  return {
    publish: () => {},
    subscribe: (listener) => {
      const hear = ({ data }: MessageEvent) => {
        if (typeof data === 'string') listener(JSON.parse(data) as ServerEvent);
      };
      socket.addEventListener('message', hear);
      return () => {
        socket.removeEventListener('message', hear);
        socket.close(1000, 'the client left');
      };
    },
  };
}

/** A server for one request reaches no stream but the request's own, so what it says about changes is published instead. */
function publishing(made: McpServer | Server, publish: Publish): McpServer | Server {
  const server: Server = made instanceof McpServer ? made.server : made;
  const notify = server.notification.bind(server);
  server.notification = async (notification, options) => {
    const event = changeIn(notification.method, notification.params);
    return event ? publish(event) : await notify(notification, options);
  };
  return made;
}

const isJson = ({ status, headers }: Response): boolean =>
  status === 200 && (headers.get('content-type')?.startsWith('application/json') ?? false);

/** The client's request as a server may see it: what proves who calls stays with the edge. */
function withoutCredentials(http: Request, signal: AbortSignal): Request {
  const headers = new Headers(http.headers);
  for (const name of ['authorization', 'cookie', 'proxy-authorization']) headers.delete(name);
  return new Request(http.url, { method: 'POST', headers, signal });
}
