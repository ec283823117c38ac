/**
 * Owns what the owner may do about forks: `GET /v1/forks` lists them, `POST /v1/forks` `{ of, principal?, as, keep? }` makes
 * one and answers with what it cost, `DELETE /v1/forks/<name>` removes one with its machine.
 */
import { Hono } from 'hono';
import { z } from 'zod';
import { MoorageError } from '../../shared/errors.ts';
import type { Forks } from '../forks.ts';

const wanted = z.strictObject({
  of: z.string(),
  principal: z.string().optional(),
  as: z.string(),
  keep: z.boolean().default(false),
});

export function forkRoutes(forks: Forks): Hono {
  return new Hono()
    .get('/', (context) => context.json({ forks: forks.list() }))
    .post('/', async (context) => {
      const body = wanted.safeParse(await context.req.json().catch(() => undefined));
      if (!body.success) throw new MoorageError('invalid_request', 'A fork is { "of": server, "as": name }.');
      return context.json(await forks.create(body.data), 201);
    })
    .delete('/:name', async (context) => {
      await forks.remove(context.req.param('name'));
      return context.body(null, 204);
    });
}
