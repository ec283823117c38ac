/**
 * Owns what the owner may ask about machines: `GET /v1/machines`, all of them with their states and what is wrong with
 * servers in them, and
 * `DELETE /v1/machines/<key>`, which removes a single caller's with its disk.
 */
import { Hono } from 'hono';
import type { Trouble } from '../bridge/upstreams.ts';
import type { Machines } from '../machines.ts';

export function machineRoutes(machines: Machines, troubles: () => readonly Trouble[] = () => []): Hono {
  return new Hono()
    .get('/', (context) => context.json({ machines: machines.states(), troubles: troubles() }))
    .delete('/:key', async (context) => {
      await machines.removeOwn(context.req.param('key'));
      return context.body(null, 204);
    });
}
