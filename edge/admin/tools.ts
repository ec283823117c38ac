/** Owns the administration of pinned tools: `/admin/api/tools/<server>`. */
import { Hono } from 'hono';
import { acceptedTools } from '../../shared/pins.ts';
import { directoryOf } from '../directory/object.ts';
import { unknownServer } from '../session/refusals.ts';
import { bodyOf } from './body.ts';
import type { Admin } from './context.ts';

export const tools = new Hono<Admin>();

tools.get('/:server', async ({ env, req, json }) => {
  const differences = await directoryOf(env).toolDifferences(req.param('server'));
  if (differences === undefined) throw unknownServer(req.param('server'), await directoryOf(env).list());
  return json(differences);
});

tools.post('/:server/accept', async ({ env, req, json }) => {
  const { tools: seen } = await bodyOf(req.raw, acceptedTools);
  return json({ accepted: await directoryOf(env).acceptTools(req.param('server'), seen) });
});
