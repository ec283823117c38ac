/** Owns how the audit is read: `/admin/api/audit`, oldest first, in pages. */
import { Hono } from 'hono';
import { MoorageError } from '../../shared/errors.ts';
import { auditObjectOf } from '../audit/object.ts';
import type { Admin } from './context.ts';

export const audit = new Hono<Admin>();

/** `after`: the last number of the page before. `since`: Unix time in milliseconds. */
audit.get('/', async (context) => {
  const { env, req } = context;
  return context.json(await auditObjectOf(env).page(whole(req.query('after')), whole(req.query('since'))));
});

function whole(text = '0'): number {
  const number = Number(text);
  if (Number.isSafeInteger(number) && number >= 0) return number;
  throw new MoorageError('invalid_params', '"after" and "since" are whole numbers.');
}
