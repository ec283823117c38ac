/**
 * Owns the URLs of the built-in authorization server: the page on which a person decides, the way over an upstream, and the
 * endpoints that the library serves.
 *
 * The person is known by a one-time code, typed into the form itself, or by the upstream, where the browser goes after the
 * decision. The form works once, only from the browser that it was shown to, and the library's cookies bind it (the "confused
 * deputy" of MCP's security best practices).
 */
import {
  AuthorizationError,
  type AuthRequest,
  authorizationErrorRedirect,
  CimdFetchError,
} from '@cloudflare/workers-oauth-provider';
import { type Context, Hono } from 'hono';
import type { OAuthConfig } from '../../../shared/config/oauth.ts';
import { httpStatus, MoorageError, toMoorageError } from '../../../shared/errors.ts';
import { MCP_SCOPE } from '../../../shared/scopes.ts';
import { type Audited, record, recordDenial } from '../../audit/record.ts';
import type { Env } from '../../env.ts';
import { randomText } from '../../random.ts';
import { fetchPublic } from '../fetch-public.ts';
import { authOf, baseOf } from '../settings.ts';
import { codeHash } from './code.ts';
import type { Holder } from './holder.ts';
import { oauthStoreOf } from './object.ts';
import { onward, page, problemPage, question } from './page.ts';
import { fetchUpstream, type Reach } from './reach.ts';
import {
  AUTHORIZE_PATH,
  type AuthorizationServer,
  authorizationServer,
  CALLBACK_PATH,
  REGISTER_PATH,
  SERVER_METADATA_PATH,
  TOKEN_PATH,
  type Wish,
  wishOf,
} from './server.ts';
import { loginUrl, nameOf, type Pending, personOf } from './upstream.ts';

type At = Context<{ Bindings: Env }>;

/** Registrations and token requests are small. */
const MAX_FORM_BYTES = 64 * 1024;

export const oauthRoutes = new Hono<{ Bindings: Env }>();

/** @throws MoorageError `not_found` when the authorization server is off. */
function configOf({ env }: At): OAuthConfig {
  const { oauth } = authOf(env);
  if (!oauth) throw new MoorageError('not_found', 'This edge has no authorization server of its own.');
  return oauth;
}

oauthRoutes.onError((thrown, context) => {
  recordDenial(auditedOf(context), thrown);
  return answerTo(thrown, context);
});

const auditedOf = (context: At): Audited => ({
  env: context.env,
  request: context.req.raw,
  waitUntil: (promise) => context.executionCtx.waitUntil(promise),
});

const baseAt = ({ env, req }: At): string => baseOf(env, new URL(req.url));

for (const path of [SERVER_METADATA_PATH, `${SERVER_METADATA_PATH}/*`]) {
  oauthRoutes.get(path, (context) => {
    // Clients look below the path of a resource too (RFC 8414, section 3.1); this issuer has none.
    const url = new URL(SERVER_METADATA_PATH, context.req.url);
    return serverFor(context, { resources: [], scopes: [] }).fetch(new Request(url, context.req.raw));
  });
}

for (const path of [TOKEN_PATH, REGISTER_PATH]) {
  oauthRoutes.on(['POST', 'OPTIONS'], path, async (context) => {
    const body = await context.req.raw.clone().text();
    if (body.length > MAX_FORM_BYTES)
      throw new MoorageError('body_too_large', 'This is too large for a token request.');
    const form = new URLSearchParams(path === TOKEN_PATH ? body : '');
    const wish = wishOf(form, baseAt(context));
    const bound = await boundResource(context.env, form.get('code') ?? form.get('refresh_token') ?? '');
    return await serverFor(context, { ...wish, resources: [...wish.resources, ...bound] }).fetch(context.req.raw);
  });
}

oauthRoutes.get(AUTHORIZE_PATH, async (context) => {
  const server = serverFor(context, wishOfUrl(context));
  const asked = await server.helpers.parseAuthRequest(context.req.raw);
  return await ask(context, server, asked);
});

oauthRoutes.post(AUTHORIZE_PATH, async (context) => {
  const server = serverFor(context, wishOfUrl(context));
  const form = await context.req.formData();
  const handle = String(form.get('handle') ?? '');
  if (form.get('decision') !== 'allow') {
    const { redirectTo, headers } = await server.helpers.denyConsent(context.req.raw, handle);
    return await onward(redirectTo, headers);
  }
  const { upstream } = configOf(context);
  // The form first: a code is taken only from the browser that was asked for it. A wrong one is asked for again.
  const { request, headers } = await server.helpers.approveConsent(context.req.raw, handle);
  if (!upstream) {
    const person = await personByCode(context.env, String(form.get('code') ?? ''));
    if (person) return await finish(context, server, request, person, headers);
    const problem = 'This code is not good (any more). Run "moorage login code" for a new one.';
    recordDenial(auditedOf(context), new MoorageError('authentication_required', problem));
    return await ask(context, server, request, problem);
  }
  const pending: Pending = { verifier: randomText(32), nonce: randomText(32) };
  const { state, headers: bound } = await server.helpers.beginUpstream(request, { data: pending, headers });
  return await onward(await loginUrl(upstream, pending, state, callbackOf(context), reachOf(context)), bound);
});

oauthRoutes.get(CALLBACK_PATH, async (context) => {
  const { upstream } = configOf(context);
  if (!upstream) throw new MoorageError('not_found', 'Nobody logs in elsewhere for this edge.');
  const first = serverFor(context, { resources: [], scopes: [] });
  const { request, data, headers } = await first.helpers.finishUpstream<Pending>(context.req.raw);
  const server = serverFor(context, { resources: request.resource ? [request.resource] : [], scopes: request.scope });
  const code = context.req.query('code');
  if (context.req.query('error') === 'access_denied') {
    recordDenial(auditedOf(context), new MoorageError('authentication_required', 'Denied where people log in.'));
    return await onward(authorizationErrorRedirect(request, 'access_denied'), headers);
  }
  if (code === undefined) {
    throw new MoorageError('authentication_required', 'You were not logged in there. Start again in your client.');
  }
  const person = await personOf(upstream, code, data, callbackOf(context), reachOf(context));
  return await finish(context, server, request, person, headers);
});

async function ask(context: At, server: AuthorizationServer, asked: AuthRequest, problem?: string): Promise<Response> {
  const { upstream } = configOf(context);
  const description = await server.helpers.describeConsent(asked);
  const { handle, headers } = await server.helpers.beginConsent(asked);
  const body = question({
    description,
    handle,
    resource: asked.resource ?? baseAt(context),
    byCode: upstream === undefined,
    upstream: upstream ? nameOf(upstream) : null,
    ...(problem === undefined ? {} : { problem }),
  });
  return await page('May this client use your servers?', body, problem === undefined ? 200 : 403, headers);
}

async function finish(
  context: At,
  server: AuthorizationServer,
  request: AuthRequest,
  person: Holder,
  headers: Headers,
): Promise<Response> {
  const { redirectTo } = await server.helpers.completeAuthorization({
    request,
    // The library keeps ":" for itself.
    userId: encodeURIComponent(person.subject),
    metadata: { name: person.name ?? person.subject, at: Date.now() },
    scope: request.scope.length > 0 ? request.scope : [MCP_SCOPE],
    props: person,
    // One person may use a client on several computers.
    revokeExistingGrants: false,
  });
  const { clientId, resource, scope } = request;
  const detail = { who: person.subject, client: clientId.slice(0, 256), resource, scopes: scope };
  record(auditedOf(context), { kind: 'login', action: 'approved', detail });
  return await onward(redirectTo, headers);
}

/** Whom a one-time code lets in. */
async function personByCode(env: Env, code: string): Promise<Holder | null> {
  const taken = await oauthStoreOf(env).takeCode(await codeHash(code));
  return taken && { subject: `code|${taken.name}`, issuer: 'code', name: taken.name, groups: taken.groups };
}

/** The resource that the grant behind a code or refresh token is for: clients may leave it out of the token request. */
async function boundResource(env: Env, token: string): Promise<string[]> {
  const [, grant] = /^([^:]+:[^:]+):[^:]+$/.exec(token) ?? [];
  const stored = grant === undefined ? null : await oauthStoreOf(env).get(`grant:${grant}`);
  const resource: unknown = stored === null ? undefined : (JSON.parse(stored) as { resource?: unknown }).resource;
  return typeof resource === 'string' ? [resource] : [];
}

const serverFor = (context: At, wish: Wish): AuthorizationServer =>
  authorizationServer(context.env, configOf(context), baseAt(context), wish);

const wishOfUrl = (context: At): Wish => wishOf(new URL(context.req.url).searchParams, baseAt(context));

const callbackOf = (context: At): string => `${baseAt(context)}${CALLBACK_PATH}`;

function reachOf({ env }: At): Reach {
  return {
    fetch: (url, init) => fetchUpstream(url, init, env.LOOPBACK),
    fetchText: (url, local) => fetchPublic(url, local ? { loopback: env.LOOPBACK } : {}),
    secret: env.MOORAGE_UPSTREAM_SECRET,
    now: Date.now(),
  };
}

/** A person reads the answer, unless it goes back to the client. */
async function answerTo(thrown: unknown, { req }: At): Promise<Response> {
  if (thrown instanceof AuthorizationError) {
    return thrown.redirectTo ? await onward(thrown.redirectTo) : await problemPage(thrown.description, 400);
  }
  if (thrown instanceof CimdFetchError) {
    return await problemPage(
      'The document by which this client introduces itself cannot be read. Its maker must mend it.',
      400,
    );
  }
  if (!(thrown instanceof MoorageError)) console.error('unexpected', thrown);
  const error = toMoorageError(thrown);
  if (req.method === 'POST' && req.path !== AUTHORIZE_PATH) {
    return Response.json(
      { error: error.code === 'internal' ? 'server_error' : 'invalid_request', error_description: error.message },
      { status: httpStatus(error.code), headers: { 'cache-control': 'no-store' } },
    );
  }
  return await problemPage(error.message, httpStatus(error.code));
}
