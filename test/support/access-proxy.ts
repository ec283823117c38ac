/**
 * What Cloudflare Access does in front of a host name, as far as a program with a service token sees it: whatever lacks the
 * two headers of one is refused as Cloudflare refuses it, the rest passes, WebSockets too. The headers pass on as well: the
 * far end must cope with seeing them.
 */
import { createServer, type IncomingHttpHeaders, type IncomingMessage, request as requestOf } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { Duplex } from 'node:stream';

export interface ServiceToken {
  readonly clientId: string;
  readonly clientSecret: string;
}

/** Access answers so: 403 to a token that is not good, 302 to the login page of the team, or 401 where that is chosen. */
export type Refusal = 'forbidden' | 'login' | 'unauthorized' | 'page';

const PAGE = '<!DOCTYPE html><title>Sign in ・ Cloudflare Access</title><form action="/cdn-cgi/access/login">';
const HTML = { 'content-type': 'text/html' };
const REFUSALS: Readonly<Record<Refusal, { status: number; headers: Record<string, string>; body: string }>> = {
  forbidden: { status: 403, headers: HTML, body: `${PAGE}<h1>Forbidden</h1>` },
  login: {
    status: 302,
    headers: { ...HTML, location: 'https://team.cloudflareaccess.com/cdn-cgi/access/login/origin.example.com' },
    body: '',
  },
  unauthorized: { status: 401, headers: { 'content-type': 'application/json' }, body: '{"message":"Unauthorized"}' },
  page: { status: 200, headers: HTML, body: PAGE },
};

export interface AccessProxy {
  readonly url: string;
  /** Headers of what passed. */
  readonly passed: IncomingHttpHeaders[];
  /** Whom it lets in from now on, and how it refuses the others. */
  rule: { readonly token: ServiceToken; readonly refusal: Refusal };
  /** Ends every connection. */
  cut(): void;
  close(): Promise<void>;
}

/** Listens on loopback (`port` 0: a free one) in front of `to`, a base URL that is asked for at each request. */
export async function accessProxy(to: () => string, rule: AccessProxy['rule'], port = 0): Promise<AccessProxy> {
  const passed: IncomingHttpHeaders[] = [];
  const sockets = new Set<Duplex>();
  const isGood = ({ headers }: IncomingMessage) =>
    headers['cf-access-client-id'] === proxy.rule.token.clientId &&
    headers['cf-access-client-secret'] === proxy.rule.token.clientSecret;
  const onward = (request: IncomingMessage) => {
    passed.push(request.headers);
    const { hostname, port: at, host } = new URL(to());
    const headers = { ...request.headers, host, 'cf-access-jwt-assertion': 'of.the.team' };
    return requestOf({ hostname, port: at, method: request.method, path: request.url, headers, agent: false });
  };
  const server = createServer((request, response) => {
    if (!isGood(request)) {
      const { status, headers, body } = REFUSALS[proxy.rule.refusal];
      request.resume();
      response.writeHead(status, headers).end(body);
      return;
    }
    const outgoing = onward(request);
    outgoing.once('response', (answer) => {
      response.writeHead(answer.statusCode ?? 502, answer.headers);
      response.flushHeaders();
      answer.pipe(response);
      answer.once('error', () => response.destroy());
    });
    outgoing.once('error', () => response.destroy());
    response.once('close', () => outgoing.destroy());
    request.pipe(outgoing);
  });
  server.on('upgrade', (request, socket) => {
    if (!isGood(request)) {
      const { status, headers, body } = REFUSALS[proxy.rule.refusal];
      const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`);
      socket.end(`HTTP/1.1 ${status} No\r\n${lines.join('')}content-length: ${body.length}\r\n\r\n${body}`);
      return;
    }
    const outgoing = onward(request);
    outgoing.once('upgrade', (answer, far) => {
      const lines = Object.entries(answer.headers).map(([name, value]) => `${name}: ${value}\r\n`);
      socket.write(`HTTP/1.1 101 Switching Protocols\r\n${lines.join('')}\r\n`);
      far.pipe(socket).pipe(far);
      for (const end of [far, socket]) end.once('error', () => [far, socket].map((each) => each.destroy()));
    });
    outgoing.once('error', () => socket.destroy());
    outgoing.end();
  });
  server.on('connection', (socket) => {
    sockets.add(socket);
    socket.once('close', () => sockets.delete(socket));
  });
  await new Promise<void>((resolve) => server.listen(port, '127.0.0.1', resolve));
  const proxy: AccessProxy = {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    passed,
    rule,
    cut: () => {
      for (const socket of sockets) socket.destroy();
    },
    close: async () => {
      const closed = new Promise<void>((resolve) => server.close(() => resolve()));
      proxy.cut();
      await closed;
    },
  };
  return proxy;
}
