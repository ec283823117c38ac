/** Owns the door of the link: only an origin that this edge knows, with a fresh token of its own, gets to its object. */
import { originId } from '../../shared/enrolment.ts';
import { MoorageError } from '../../shared/errors.ts';
import { verifyLinkToken } from '../../shared/grant.ts';
import { ORIGIN_HEADER } from '../../shared/link.ts';
import { originNow } from '../enrolment/known.ts';
import { type Env, type KnownOrigin, originKeyOf } from '../env.ts';

/** The answer to an upgrade of `LINK_PATH`. @throws MoorageError `invalid_request`, `grant_invalid`. */
export async function acceptLink(env: Env, request: Request): Promise<Response> {
  if (request.headers.get('upgrade')?.toLowerCase() !== 'websocket') {
    throw new MoorageError('invalid_request', "This is where an origin's agent opens its WebSocket.");
  }
  const origin = await linkOrigin(env, request.headers);
  const headers = new Headers({ upgrade: 'websocket', 'moorage-origin-id': origin.id });
  return await env.ORIGIN.get(env.ORIGIN.idFromName(origin.id)).fetch('http://origin/', { headers });
}

/** The origin that a link token of its own speaks for. @throws MoorageError `grant_invalid`. */
export async function linkOrigin(env: Env, headers: Headers): Promise<KnownOrigin> {
  const id = originId.safeParse(headers.get(ORIGIN_HEADER));
  const [, token] = /^Bearer (\S+)$/.exec(headers.get('authorization') ?? '') ?? [];
  const origin = id.success && token ? await originNow(env, id.data) : undefined;
  // One answer for an unknown origin and a missing token: it tells a stranger nothing.
  if (!origin || !token)
    throw new MoorageError('grant_invalid', 'This origin is not known here, or its token is missing.');
  await verifyLinkToken(await originKeyOf(origin), token, origin.id, Date.now());
  return origin;
}
