/**
 * Owns the administration of logins at the built-in authorization server.
 *
 * | Request | Answers |
 * |---|---|
 * | `POST /logins/codes` `{ name, groups }` | `{ code, expiresAt }`: good once, for ten minutes |
 * | `GET /logins` | `{ logins: [{ id, subject, name, client, since, scopes }] }` |
 * | `DELETE /logins/<id>` | `204`: its tokens are worth nothing, its streams end |
 */
import { Hono } from 'hono';
import { z } from 'zod';
import { nameSchema } from '../../shared/config/auth.ts';
import { MoorageError } from '../../shared/errors.ts';
import { codeHash, mintCode } from '../auth/oauth/code.ts';
import { oauthStoreOf } from '../auth/oauth/object.ts';
import { authorizationServer } from '../auth/oauth/server.ts';
import { authOf, baseOf } from '../auth/settings.ts';
import type { Env } from '../env.ts';
import type { Admin } from './context.ts';

const CODE_LIFE_MS = 10 * 60_000;
const MAX_LISTED = 1000;
const PREFIX = 'grant:';

const wish = z.strictObject({
  name: nameSchema.default('owner'),
  groups: z.array(z.string().min(1).max(256)).max(200).default([]),
});

/** What the library stores of a grant, as far as it is told. */
const stored = z.looseObject({
  clientId: z.string(),
  createdAt: z.number(),
  scope: z.array(z.string()),
  metadata: z.looseObject({ name: z.string() }),
});

export const logins = new Hono<Admin>();

logins.post('/codes', async ({ env, req, json }) => {
  configOf(env);
  const parsed = wish.safeParse(await req.json().catch(() => undefined));
  if (!parsed.success) {
    const [issue] = parsed.error.issues;
    throw new MoorageError('invalid_request', `"${issue?.path.join('.')}": ${issue?.message}.`);
  }
  const code = mintCode((bytes) => crypto.getRandomValues(bytes));
  const expiresAt = Date.now() + CODE_LIFE_MS;
  await oauthStoreOf(env).addCode(await codeHash(code), parsed.data, expiresAt);
  return json({ code, expiresAt: new Date(expiresAt).toISOString() }, 201);
});

logins.get('/', async ({ env, json }) => {
  const store = oauthStoreOf(env);
  const { keys } = await store.list(PREFIX, MAX_LISTED, '');
  const found = await Promise.all(
    keys.map(async ({ name: key }) => {
      const grant = stored.safeParse(JSON.parse((await store.get(key)) ?? 'null'));
      if (!grant.success) return [];
      const { clientId, createdAt, scope, metadata } = grant.data;
      const id = key.slice(PREFIX.length);
      const since = new Date(createdAt * 1000).toISOString();
      return [{ id, subject: subjectIn(id), name: metadata.name, client: clientId, since, scopes: scope }];
    }),
  );
  return json({ logins: found.flat() });
});

logins.delete('/:id', async ({ env, req, body }) => {
  const [, user, grant] = /^([^:]+):([^:]+)$/.exec(req.param('id')) ?? [];
  const key = `${PREFIX}${user}:${grant}`;
  if (user === undefined || grant === undefined || (await oauthStoreOf(env).get(key)) === null) {
    throw new MoorageError('not_found', 'There is no such login. See "moorage login list".');
  }
  const server = authorizationServer(env, configOf(env), baseOf(env, new URL(req.url)), { resources: [], scopes: [] });
  await server.helpers.revokeGrant(grant, user);
  return body(null, 204);
});

const subjectIn = (id: string): string => decodeURIComponent(id.split(':')[0] ?? '');

function configOf(env: Env) {
  const { oauth } = authOf(env);
  if (oauth) return oauth;
  throw new MoorageError('not_found', 'This edge has no authorization server of its own: set "auth": { "oauth": {} }.');
}
