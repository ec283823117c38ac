/**
 * Owns the stateless era (2026-07-28) for servers of the edge that only know sessions: those of the SDK's version 1.
 *
 * Such a server is initialized for one request with what the request's envelope says, and stands behind a server of the
 * SDK's version 2, which does everything that the revision added. Its questions in the middle of a call cannot be asked:
 * an instance lives as long as its request, and a retry would find another one that has not begun.
 */
import { ProtocolError, Server, type ServerEvent } from '@modelcontextprotocol/server';
import { toJsonRpcError } from '../../shared/errors.ts';
import { isRequest, isResponse, type JsonRpcMessage, type JsonRpcRequest } from '../../shared/jsonrpc.ts';
import { capabilityRequired, type Envelope, isRecord } from '../../shared/rev-2026-07-28.ts';
import { LEGACY_REVISIONS } from '../../shared/revision.ts';
import { changeIn } from './change.ts';
import { type EdgeServerContext, type EdgeServerFactory, Instance } from './instance.ts';

/** Which capability of the client a question needs. */
const ASKED: ReadonlyMap<string, string> = new Map([
  ['elicitation/create', 'elicitation'],
  ['sampling/createMessage', 'sampling'],
  ['roots/list', 'roots'],
]);

/** A server of this SDK in front of the one that `factory` makes. @throws MoorageError `server_failed`. */
export async function translated(
  factory: EdgeServerFactory,
  context: EdgeServerContext,
  envelope: Envelope,
  publish: (event: ServerEvent) => void,
): Promise<Server> {
  const instance = await Instance.create(factory, context, 'edge');
  const answer = await instance.restore({
    initialize: JSON.stringify({
      protocolVersion: LEGACY_REVISIONS[0],
      capabilities: envelope.capabilities,
      clientInfo: envelope.clientInfo ?? { name: 'unknown', version: '0' },
    }),
    logLevel: envelope.logLevel ?? null,
    subscriptions: [],
  });
  const result = 'result' in answer ? answer.result : {};
  return new TranslatingServer(instance, envelope, publish, result);
}

class TranslatingServer extends Server {
  readonly #instance: Instance;

  constructor(
    instance: Instance,
    envelope: Envelope,
    publish: (event: ServerEvent) => void,
    initialized: Readonly<Record<string, unknown>>,
  ) {
    const { serverInfo, capabilities, instructions } = initialized;
    super(
      { name: 'server', version: '0', ...(isRecord(serverInfo) && serverInfo) },
      {
        capabilities: isRecord(capabilities) ? capabilities : {},
        ...(typeof instructions === 'string' && { instructions }),
      },
    );
    this.#instance = instance;
    this.fallbackRequestHandler = (request, { mcpReq }) => {
      const { promise, resolve, reject } = Promise.withResolvers<Record<string, unknown>>();
      const feed: JsonRpcRequest = { jsonrpc: '2.0', id: 1, method: request.method, params: { ...request.params } };
      const hear = (message: JsonRpcMessage) => {
        if (isResponse(message)) {
          if ('result' in message) resolve(message.result);
          else reject(errorOf(message.error));
        } else if (isRequest(message)) {
          const refused = toJsonRpcError(capabilityRequired({ [ASKED.get(message.method) ?? message.method]: {} }));
          reject(new ProtocolError(refused.code, refused.message, refused.data));
        } else {
          const event = changeIn(message.method, message.params);
          if (event) publish(event);
          // Without a level in its envelope a request asked for no log (2026-07-28, server/utilities/logging).
          else if (message.method !== 'notifications/message' || envelope.logLevel) void mcpReq.notify(message);
        }
      };
      mcpReq.signal.addEventListener('abort', () =>
        instance.tell({ jsonrpc: '2.0', method: 'notifications/cancelled', params: { requestId: feed.id } }),
      );
      instance.feed(feed, hear);
      return promise.finally(() => instance.close());
    };
  }

  override async close(): Promise<void> {
    await super.close();
    await this.#instance.close();
  }
}

/** -32002 named a missing resource before; this revision has no such code and takes it for wrong parameters. */
function errorOf({ code, message, data }: { code: number; message: string; data?: unknown }): ProtocolError {
  return new ProtocolError(code === -32002 ? -32602 : code, message, data);
}
