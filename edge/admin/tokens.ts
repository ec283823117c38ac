/** Owns the administration of bearer tokens: `/admin/api/tokens`. */
import { Hono } from 'hono';
import { MoorageError } from '../../shared/errors.ts';
import { newToken } from '../../shared/tokens.ts';
import { record } from '../audit/record.ts';
import { authOf } from '../auth/settings.ts';
import { tokensOf } from '../auth/tokens/object.ts';
import { unwrap } from '../outcome.ts';
import { bodyOf } from './body.ts';
import { type Admin, auditedOf } from './context.ts';

export const tokens = new Hono<Admin>();

tokens.get('/', async ({ env, json }) => json({ tokens: await tokensOf(env).list() }));

tokens.post('/', async (context) => {
  if (!authOf(context.env).tokens) {
    throw new MoorageError('invalid_params', 'This edge takes no bearer tokens: set "auth": { "tokens": true } first.');
  }
  const wish = await bodyOf(context.req.raw, newToken);
  const { subject } = context.var.principal;
  const created = unwrap(await tokensOf(context.env).create(wish, subject));
  record(auditedOf(context), { kind: 'token', action: 'create', detail: { id: created.id, ...wish } });
  return context.json(created, 201);
});

/** By id or name. */
tokens.delete('/:token', async (context) => {
  const revoked = unwrap(await tokensOf(context.env).revoke(context.req.param('token')));
  record(auditedOf(context), { kind: 'token', action: 'revoke', detail: { id: revoked.id, name: revoked.name } });
  return context.json(revoked);
});
