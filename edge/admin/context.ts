/** Owns what the routes of administration find in their context, and whose acts they are. */
import type { Context } from 'hono';
import type { Principal } from '../../shared/principal.ts';
import type { Audited } from '../audit/record.ts';
import type { Env } from '../env.ts';

export interface Admin {
  Bindings: Env;
  Variables: { readonly principal: Principal };
}

/** Whose act it is that is written down. */
export const auditedOf = (context: Context<Admin>): Audited => ({
  env: context.env,
  request: context.req.raw,
  principal: context.var.principal,
  waitUntil: (promise) => context.executionCtx.waitUntil(promise),
});
