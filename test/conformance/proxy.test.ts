import { afterEach, expect, it } from 'vitest';
import type { WebHandler } from './listen.ts';
import { listen } from './listen.ts';
import { startProxy } from './proxy.ts';

const closers: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close();
});

async function proxied(handle: WebHandler, headers?: Record<string, string>) {
  const listener = await listen(handle);
  const proxy = await startProxy(`http://localhost:${listener.port}/mcp`, headers);
  closers.push(listener.close, proxy.close);
  return { proxy, target: `localhost:${listener.port}` };
}

it('adds its headers and names the target where the client named the proxy', async () => {
  const { proxy, target } = await proxied(async (request) => Response.json(Object.fromEntries(request.headers)), {
    authorization: 'Bearer t',
  });
  const answer = await fetch(proxy.url, { headers: { origin: new URL(proxy.url).origin } });
  expect(await answer.json()).toMatchObject({
    authorization: 'Bearer t',
    host: target,
    origin: `http://${target}`,
  });
});

it('passes an event on before the stream ends, and the departure of the client to the server', async () => {
  let gone: (() => void) | undefined;
  const left = new Promise<void>((resolve) => {
    gone = resolve;
  });
  const { proxy } = await proxied(async () => {
    const body = new ReadableStream({
      start: (controller) => controller.enqueue(new TextEncoder().encode('id: 1\ndata: \n\n')),
      cancel: () => gone?.(),
    });
    return new Response(body, { headers: { 'content-type': 'text/event-stream' } });
  });

  const leaving = new AbortController();
  const answer = await fetch(proxy.url, { signal: leaving.signal });
  const first = await answer.body?.getReader().read();
  expect(new TextDecoder().decode(first?.value)).toBe('id: 1\ndata: \n\n');
  leaving.abort();
  await left;
  expect(proxy.exchanges).toMatchObject([{ method: 'GET', path: '/mcp', status: 200, endedBy: 'client' }]);
});

it('answers 502 when the target does not', async () => {
  const proxy = await startProxy('http://localhost:1/mcp');
  closers.push(proxy.close);
  expect((await fetch(proxy.url)).status).toBe(502);
});
