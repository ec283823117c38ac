/** Owns the two doors of enrolment (`shared/enrolment.ts`): an origin that is new, and one that changes its key. */
import { type Context, Hono } from 'hono';
import type { JWK } from 'jose';
import type { z } from 'zod';
import { enrolRequest, type PublicKey, publicKey, rotateRequest } from '../../shared/enrolment.ts';
import { MoorageError } from '../../shared/errors.ts';
import { importKey, verifyLinkToken } from '../../shared/grant.ts';
import { type Audited, record, recordDenial } from '../audit/record.ts';
import { directoryOf } from '../directory/object.ts';
import { type Env, edgePublicKeysOf } from '../env.ts';
import { linkOrigin } from '../origin/accept.ts';
import { readBounded } from '../read-message.ts';
import { refuse } from '../respond.ts';

const MAX_BODY_BYTES = 8 * 1024;

export const enrolment = new Hono<{ Bindings: Env }>();

const auditedOf = (context: Context<{ Bindings: Env }>): Audited => ({
  env: context.env,
  request: context.req.raw,
  waitUntil: (promise) => context.executionCtx.waitUntil(promise),
});

enrolment.onError((thrown, context) => {
  recordDenial(auditedOf(context), thrown);
  return refuse(thrown);
});

enrolment.post('/enrol', async (context) => {
  const { env, req, json } = context;
  const { id, secret, key } = await bodyOf(req.raw, enrolRequest);
  await usable(key);
  const taken = await directoryOf(env).enrol(id, await hashOf(secret), key);
  // One answer for what never was, was used and is too old: it tells a stranger nothing.
  if (!taken) {
    throw new MoorageError(
      'grant_invalid',
      'This code is not good (any more): codes work once. Ask for a new one with "moorage origin invite".',
    );
  }
  record(auditedOf(context), { kind: 'enrolment', action: 'join', detail: { origin: id } });
  return json({ id, keys: edgePublicKeysOf(env) });
});

enrolment.post('/rotate', async (context) => {
  const { env, req, body } = context;
  const origin = await linkOrigin(env, req.raw.headers);
  const { key, proof } = await bodyOf(req.raw, rotateRequest);
  await verifyLinkToken(await usable(key), proof, origin.id, Date.now());
  const old = publicKey.parse(origin.key);
  if (!(await directoryOf(env).rotate(origin.id, old, key))) {
    throw new MoorageError('grant_invalid', 'The key of this origin is set by MOORAGE_ORIGINS: change it there.');
  }
  record(auditedOf(context), { kind: 'enrolment', action: 'rotate', detail: { origin: origin.id } });
  return body(null, 204);
});

/** SHA-256 of a code's secret, hexadecimal. The secret has 128 random bits, so a plain hash gives nothing away. */
export async function hashOf(secret: string): Promise<string> {
  const digest = new Uint8Array(await crypto.subtle.digest('SHA-256', new TextEncoder().encode(secret)));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, '0')).join('');
}

async function usable(key: PublicKey) {
  try {
    return await importKey(key as JWK);
  } catch {
    throw new MoorageError('invalid_request', 'The key is not an Ed25519 public key.');
  }
}

async function bodyOf<T>(request: Request, schema: z.ZodType<T>): Promise<T> {
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder().decode(await readBounded(request, MAX_BODY_BYTES)));
  } catch (thrown) {
    if (thrown instanceof MoorageError) throw thrown;
    throw new MoorageError('parse_error', 'The body is not JSON.');
  }
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  const [issue] = parsed.error.issues;
  throw new MoorageError('invalid_request', `The body is malformed at "${issue?.path.join('.')}": ${issue?.message}.`);
}
