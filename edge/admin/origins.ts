/**
 * Owns the administration of origins.
 *
 * | Request | Answers |
 * |---|---|
 * | `GET /origins` | `{ origins: [{ id, url?, enrolledAt?, servers, connected, lastSeen }], invited: [{ id, url, expiresAt }] }` |
 * | `POST /origins/invitations` `{ id, url, expiresInS }` | `{ code, expiresAt }`: the only time that the code is told |
 * | `DELETE /origins/<id>` | `204`: its link is cut, its servers are gone, its key is worth nothing |
 */
import { Hono } from 'hono';
import { z } from 'zod';
import { fingerprintOf, formatCode, originId } from '../../shared/enrolment.ts';
import { MoorageError } from '../../shared/errors.ts';
import { directoryOf } from '../directory/object.ts';
import { hashOf } from '../enrolment/enrol.ts';
import { type Env, edgePublicKeysOf, originsOf } from '../env.ts';
import { randomText } from '../random.ts';
import type { Admin } from './context.ts';

const LONGEST_INVITATION_S = 7 * 24 * 3600;

const invitation = z.strictObject({
  id: originId,
  url: z
    .url()
    .refine(isReachable, 'use https://, or http:// on a loopback address')
    .refine((url) => URL.parse(url)?.pathname === '/', 'an origin has a host name of its own: give no path'),
  expiresInS: z.number().int().min(60).max(LONGEST_INVITATION_S).default(3600),
});

/** Over plain http only what never leaves this host, such as a tunnel that ends here. */
function isReachable(text: string): boolean {
  const url = URL.parse(text);
  if (url?.username !== '' || url.password !== '') return false;
  if (url.protocol === 'https:') return true;
  return url.protocol === 'http:' && ['127.0.0.1', 'localhost', '[::1]'].includes(url.hostname);
}

const iso = (at: number): string => new Date(at).toISOString();

export const origins = new Hono<Admin>();

origins.get('/', async ({ env, json }) => {
  const { enrolled, invited, servers } = await directoryOf(env).originsKnown();
  const known = [...[...originsOf(env).keys()].map((id) => ({ id })), ...enrolled];
  const told = known.map(async (origin) => ({
    id: origin.id,
    ...('since' in origin ? { url: origin.url, enrolledAt: iso(origin.since) } : {}),
    servers: servers.filter((server) => server.origin === origin.id).map(({ server }) => server),
    ...(await linkOf(env, origin.id).presence()),
  }));
  return json({
    origins: await Promise.all(told),
    invited: invited.map(({ id, url, expiresAt }) => ({ id, url, expiresAt: iso(expiresAt) })),
  });
});

origins.post('/invitations', async ({ env, req, json }) => {
  const parsed = invitation.safeParse(await req.json().catch(() => undefined));
  if (!parsed.success) {
    const [issue] = parsed.error.issues;
    throw new MoorageError('invalid_request', `"${issue?.path.join('.')}": ${issue?.message}.`);
  }
  const { id, url, expiresInS } = parsed.data;
  if (originsOf(env).has(id)) {
    throw new MoorageError('invalid_request', `"id": this edge has an origin "${id}" by its own configuration.`);
  }
  const secret = randomText(16);
  const expiresAt = Date.now() + expiresInS * 1000;
  await directoryOf(env).invite({ id, url, expiresAt }, await hashOf(secret));
  const [key] = edgePublicKeysOf(env);
  return json(
    { code: formatCode({ id, secret, fingerprint: await fingerprintOf(key) }), expiresAt: iso(expiresAt) },
    201,
  );
});

origins.delete('/:id', async ({ env, req, body }) => {
  const id = req.param('id');
  if (!(await directoryOf(env).revoke(id))) {
    throw new MoorageError('not_found', `No origin "${id}" was enrolled or invited here.`);
  }
  await linkOf(env, id).cut();
  return body(null, 204);
});

const linkOf = (env: Env, id: string) => env.ORIGIN.get(env.ORIGIN.idFromName(id));
