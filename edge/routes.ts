/**
 * Owns the edge's URLs: which path leads where, and what stands before all of them.
 *
 * Everything comes after `checkHost` and `checkOrigin`; whatever is not public (`/healthz`, metadata, the link, which has its
 * own token) after `authenticate` too.
 */
import { type Context, Hono } from 'hono';
import { MoorageError } from '../shared/errors.ts';
import { LINK_PATH } from '../shared/link.ts';
import { administration } from './admin/admin.ts';
import type { Inner } from './aggregate/members.ts';
import { serveAggregate } from './aggregate/serve.ts';
import { recordDenial, recordLogin } from './audit/record.ts';
import { authenticate, endWithCredential } from './auth/authenticate.ts';
import { checkHost, checkOrigin } from './auth/browser.ts';
import { METADATA_PATH } from './auth/challenge.ts';
import { metadataOf } from './auth/metadata.ts';
import { oauthRoutes } from './auth/oauth/routes.ts';
import { ALL_SERVERS, type Resource, serverResource } from './auth/resource.ts';
import { authOf, baseOf } from './auth/settings.ts';
import { directoryOf } from './directory/object.ts';
import { SESSION_HEADER } from './endpoint.ts';
import { enrolment } from './enrolment/enrol.ts';
import type { Env } from './env.ts';
import { visible } from './guard/guard.ts';
import { limitAddress } from './limits/limit.ts';
import { type Exchange, serveMcp } from './mcp.ts';
import { acceptLink } from './origin/accept.ts';
import { respondError } from './respond.ts';
import { openSse, postToSse } from './transports/http-sse.ts';

const HEALTH_PATH = '/healthz';

/** What pages of this host may do across ports (Fetch standard, "CORS protocol"). */
const METHODS = 'POST, GET, DELETE, OPTIONS';
const REQUEST_HEADERS = [
  'content-type',
  'accept',
  'authorization',
  'mcp-session-id',
  'mcp-protocol-version',
  'last-event-id',
  'mcp-method',
  'mcp-name',
];
/** Headers of 2026-07-28 whose names the server's own tools choose. A wildcard would leave `authorization` out. */
const PARAMETER_HEADER = /^mcp-param-[\w-]+$/i;

/** What such a page may read of an answer. */
const EXPOSED = `${SESSION_HEADER}, WWW-Authenticate, Retry-After, RateLimit, RateLimit-Policy`;

function preflight(requested: string | undefined): Response {
  const asked = (requested ?? '').split(',').map((name) => name.trim());
  const names = [...REQUEST_HEADERS, ...asked.filter((name) => PARAMETER_HEADER.test(name))];
  return new Response(null, {
    status: 204,
    headers: {
      'access-control-allow-methods': METHODS,
      'access-control-allow-headers': names.join(', '),
      'access-control-max-age': '86400',
    },
  });
}

export const routes = new Hono<{ Bindings: Env }>();

routes.onError((thrown, context) => {
  const waitUntil = (promise: Promise<unknown>) => context.executionCtx.waitUntil(promise);
  recordDenial({ env: context.env, request: context.req.raw, server: context.req.param('server'), waitUntil }, thrown);
  return respondError(thrown);
});

routes.use(async (context, next) => {
  const origin = context.req.header('origin') ?? null;
  const url = new URL(context.req.url);
  // Whoever looks after the edge asks it by any address; there is nothing to learn.
  if (url.pathname !== HEALTH_PATH) checkHost(context.env, url);
  checkOrigin(context.env, url, origin);
  if (url.pathname !== HEALTH_PATH && url.pathname !== LINK_PATH) await limitAddress(context.env, context.req.raw);
  if (origin !== null && context.req.method === 'OPTIONS') {
    context.res = preflight(context.req.header('access-control-request-headers'));
  } else {
    await next();
  }
  // The answer to a WebSocket's upgrade goes to a program: browsers' rules have no say in it.
  if (context.res.status === 101) return;
  // Nothing here is a page, and a browser shall not take it for one.
  context.res.headers.set('x-content-type-options', 'nosniff');
  if (origin === null) return;
  context.res.headers.set('access-control-allow-origin', origin);
  context.res.headers.set('access-control-expose-headers', EXPOSED);
  context.res.headers.append('vary', 'origin');
});

routes.get(HEALTH_PATH, (context) => context.json({ ok: true }));

routes.get(LINK_PATH, (context) => acceptLink(context.env, context.req.raw));

routes.route('/_origin', enrolment);

routes.route('/admin/api', administration);

routes.route('/', oauthRoutes);

/** Of no server that is unknown is anything told: the documents are the same for every name. */
const metadata = (context: Context<{ Bindings: Env }>, resource: Resource): Response => {
  const { env, req } = context;
  const headers = { 'cache-control': 'max-age=300' };
  return context.json(metadataOf(authOf(env), resource, baseOf(env, new URL(req.url))), 200, headers);
};
routes.get(`${METADATA_PATH}/mcp`, (context) => metadata(context, ALL_SERVERS));
routes.get(`${METADATA_PATH}/:server/mcp`, (context) => metadata(context, serverResource(context.req.param('server'))));

routes.get('/', async (context) => {
  const { env, req } = context;
  const principal = await authenticate(req.raw, env, ALL_SERVERS);
  const base = baseOf(env, new URL(req.url));
  const servers = visible(env, principal, await directoryOf(env).list());
  return context.json({ servers: servers.map((name) => ({ name, url: `${base}/${name}/mcp` })) });
});

/** What is behind a server's paths, for whoever may use it. */
const endpoint =
  (serve: (exchange: Exchange) => Promise<Response>) =>
  async (context: Context<{ Bindings: Env }, '/:server/x'>): Promise<Response> => {
    const { env, req } = context;
    const principal = await authenticate(req.raw, env, serverResource(req.param('server')));
    const exchange = {
      env,
      request: req.raw,
      server: req.param('server'),
      principal,
      waitUntil: (promise: Promise<unknown>) => context.executionCtx.waitUntil(promise),
    };
    recordLogin(exchange);
    const response = await serve(exchange);
    return endWithCredential(env, principal.credential, response);
  };

routes.all('/:server/mcp', endpoint(serveMcp));
routes.get('/:server/sse', endpoint(openSse));
routes.post('/:server/messages', endpoint(postToSse));

routes.all('/mcp', async (context) => {
  const { env, req } = context;
  const principal = await authenticate(req.raw, env, ALL_SERVERS);
  const waitUntil = (promise: Promise<unknown>) => context.executionCtx.waitUntil(promise);
  recordLogin({ env, request: req.raw, principal, waitUntil });
  const inner: Inner = (server, request, follows = false) =>
    serveMcp({ env, request, server, principal, waitUntil, wholeStreams: true, counted: true, follows });
  const response = await serveAggregate({ env, request: req.raw, principal, waitUntil, inner });
  return endWithCredential(env, principal.credential, response);
});

routes.notFound((context) => {
  const { origin, pathname } = new URL(context.req.url);
  const server = /^\/([A-Za-z0-9][A-Za-z0-9._-]{0,62})\/?$/.exec(pathname)?.[1] ?? '<server>';
  return respondError(
    new MoorageError('not_found', `Nothing is here. An MCP server's URL has the form ${origin}/${server}/mcp.`),
  );
});
