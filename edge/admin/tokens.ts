/** Owns the administration of bearer tokens: `/admin/api/tokens`. */
import { Hono } from 'hono';
import { MoorageError } from '../../shared/errors.ts';
import { newToken } from '../../shared/tokens.ts';
import { authOf } from '../auth/settings.ts';
import { tokensOf } from '../auth/tokens/object.ts';
import { unwrap } from '../outcome.ts';
import type { Admin } from './admin.ts';
import { bodyOf } from './body.ts';

export const tokens = new Hono<Admin>();

tokens.get('/', async ({ env, json }) => json({ tokens: await tokensOf(env).list() }));

tokens.post('/', async (context) => {
  if (!authOf(context.env).tokens) {
    throw new MoorageError('invalid_params', 'This edge takes no bearer tokens: set "auth": { "tokens": true } first.');
  }
  const wish = await bodyOf(context.req.raw, newToken);
  const { subject } = context.var.principal;
  return context.json(unwrap(await tokensOf(context.env).create(wish, subject)), 201);
});

/** By id or name. */
tokens.delete('/:token', async (context) => {
  return context.json(unwrap(await tokensOf(context.env).revoke(context.req.param('token'))));
});
