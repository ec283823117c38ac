/** `fetch` over HTTPS with an authority, and a certificate to show, of the caller's own: what the global one has no way to be told. */
import { request as requestOf } from 'node:https';
import { Readable } from 'node:stream';
import type { ReadableStream as NodeReadableStream } from 'node:stream/web';

export interface Tls {
  /** PEM. */
  readonly ca: Buffer;
  readonly cert?: Buffer;
  readonly key?: Buffer;
}

export function httpsFetch(tls: Tls): typeof fetch {
  return async (input, init) => {
    const request = new Request(input, init);
    const body = request.body === null ? undefined : Buffer.from(await request.arrayBuffer());
    return await new Promise<Response>((resolve, reject) => {
      const outgoing = requestOf(
        request.url,
        { ...tls, agent: false, method: request.method, headers: Object.fromEntries(request.headers) },
        (answer) => {
          const headers = new Headers();
          for (let n = 0; n < answer.rawHeaders.length; n += 2) {
            headers.append(answer.rawHeaders[n] ?? '', answer.rawHeaders[n + 1] ?? '');
          }
          const status = answer.statusCode ?? 0;
          const isEmpty = [204, 205, 304].includes(status);
          if (isEmpty) answer.resume();
          // Node's streams and the DOM's are the same class under two names.
          const stream = Readable.toWeb(answer) as NodeReadableStream<Uint8Array> as unknown as BodyInit;
          resolve(new Response(isEmpty ? null : stream, { status, headers }));
        },
      );
      request.signal.addEventListener('abort', () => outgoing.destroy(new Error('aborted')), { once: true });
      outgoing.once('error', reject);
      outgoing.end(body);
    });
  };
}
