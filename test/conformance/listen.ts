/**
 * Owns the bridge from a web handler to a port of this machine. A client that goes away aborts its request's signal
 * and cancels the response's body.
 */
import type { IncomingMessage, ServerResponse } from 'node:http';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';

export type WebHandler = (request: Request) => Promise<Response>;

export interface Listener {
  port: number;
  close(): Promise<void>;
}

/** Listens on 127.0.0.1; port 0 picks a free one. */
export async function listen(handle: WebHandler, port = 0): Promise<Listener> {
  const server = createServer((incoming, outgoing) => {
    answer(handle, incoming, outgoing).catch((error: unknown) => outgoing.destroy(error as Error));
  });
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(port, '127.0.0.1', resolve);
  });
  return {
    port: (server.address() as AddressInfo).port,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

async function answer(handle: WebHandler, incoming: IncomingMessage, outgoing: ServerResponse): Promise<void> {
  const gone = new AbortController();
  outgoing.once('close', () => gone.abort());
  const chunks: Buffer[] = [];
  for await (const chunk of incoming) chunks.push(chunk as Buffer);
  const response = await handle(toRequest(incoming, Buffer.concat(chunks), gone.signal));
  outgoing.writeHead(response.status, [...response.headers].flat());
  // A stream that says nothing yet has still been opened: its headers leave now.
  outgoing.flushHeaders();
  await drain(response.body, outgoing, gone.signal);
}

function toRequest(incoming: IncomingMessage, body: Buffer, signal: AbortSignal): Request {
  const method = incoming.method ?? 'GET';
  return new Request(`http://${incoming.headers.host ?? 'localhost'}${incoming.url ?? '/'}`, {
    method,
    headers: Object.entries(incoming.headersDistinct).flatMap(([name, values]) =>
      (values ?? []).map((value): [string, string] => [name, value]),
    ),
    body: body.length > 0 && method !== 'GET' ? new Uint8Array(body) : null,
    signal,
  });
}

async function drain(
  body: ReadableStream<Uint8Array> | null,
  outgoing: ServerResponse,
  gone: AbortSignal,
): Promise<void> {
  const reader = body?.getReader();
  gone.addEventListener('abort', () => void reader?.cancel().catch(() => {}));
  while (reader) {
    const { done, value } = await reader.read();
    if (done) break;
    if (!outgoing.write(value)) await new Promise((resolve) => outgoing.once('drain', resolve).once('close', resolve));
  }
  outgoing.end();
}
