/**
 * Owns what the owner may do to keep machines awake: `GET /v1/holds` lists what is held, `POST /v1/holds` `{ server, forMs }`
 * holds a machine, `DELETE /v1/holds/<server>` lets it sleep again.
 */
import { Hono } from 'hono';
import { z } from 'zod';
import { MoorageError } from '../../shared/errors.ts';
import { type Holds, LONGEST_HOLD_MS } from '../holds.ts';

const wanted = z.strictObject({ server: z.string(), forMs: z.number().int().min(1).max(LONGEST_HOLD_MS) });

export function holdRoutes(holds: Holds): Hono {
  return new Hono()
    .get('/', (context) => context.json({ holds: holds.list() }))
    .post('/', async (context) => {
      const body = wanted.safeParse(await context.req.json().catch(() => undefined));
      if (body.success) return context.json(await holds.hold(body.data.server, body.data.forMs), 201);
      throw new MoorageError('invalid_request', 'A hold is { "server": name, "forMs": at most seven days }.');
    })
    .delete('/:server', (context) => {
      holds.release(context.req.param('server'));
      return context.body(null, 204);
    });
}
