/** Owns what the administration tells of the policy: `/admin/api/policy/explain`, the edge's own decision and its trace. */
import { Hono } from 'hono';
import { describedPrincipal, type ExplainAnswer, explainRequest } from '../../shared/explain.ts';
import { decide } from '../../shared/policy.ts';
import { accessOf } from '../guard/settings.ts';
import { bodyOf } from './body.ts';
import type { Admin } from './context.ts';

export const policy = new Hono<Admin>();

policy.post('/explain', async ({ env, req, json }) => {
  const { who, use } = await bodyOf(req.raw, explainRequest);
  const access = accessOf(env);
  const { allow, trace } = decide(access, describedPrincipal(who), use);
  const answer: ExplainAnswer = { decision: { allow, trace: [...trace] }, access: access ? [...access] : null };
  return json(answer);
});
