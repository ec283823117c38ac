/** Owns what the owner may ask about machines: `GET /v1/machines`, all of them with their states. */
import { Hono } from 'hono';
import type { Machines } from '../machines.ts';

export function machineRoutes(machines: Machines): Hono {
  return new Hono().get('/', (context) => context.json({ machines: machines.states() }));
}
