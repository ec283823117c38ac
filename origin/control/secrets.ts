/**
 * Owns what the owner may do with secrets: `GET /v1/secrets` (never a value), `PUT` one, `POST …/remove`, `POST …/rotate`
 * (their key), `POST …/restart` (the servers that use one). A value comes in and never goes out.
 */
import { Hono } from 'hono';
import { z } from 'zod';
import { MoorageError } from '../../shared/errors.ts';
import { secretsOf } from '../secrets/secrets.ts';
import type { SecretStore } from '../secrets/store.ts';
import { principalOf, type ServerDefinition } from '../server.ts';

const place = z.object({ name: z.string(), server: z.string().optional(), principal: z.string().optional() });
const named = place.extend({ value: z.string() });

export interface SecretRoutesOptions {
  readonly store: SecretStore;
  /** Ends what runs of these servers. @returns how many processes and connections. */
  readonly restart: (which: (definition: ServerDefinition) => boolean) => Promise<number>;
}

export function secretRoutes({ store, restart }: SecretRoutesOptions): Hono {
  return new Hono()
    .get('/', (context) => context.json({ secrets: store.list() }))
    .put('/', async (context) => {
      const { value, ...where } = read(named, await context.req.json());
      store.set(where, value);
      return context.json({});
    })
    .post('/remove', async (context) => context.json({ removed: store.remove(read(place, await context.req.json())) }))
    .post('/rotate', (context) => context.json({ sealed: store.rotate() }))
    .post('/restart', async (context) => {
      const { name, server, principal } = read(place, await context.req.json());
      const ended = await restart((definition) => {
        const names = [definition.name, definition.fork?.server];
        const isMeant = secretsOf(definition).includes(name) && (server === undefined || names.includes(server));
        return isMeant && (principal === undefined || principal === principalOf(definition));
      });
      return context.json({ ended });
    });
}

function read<T>(schema: z.ZodType<T>, value: unknown): T {
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  throw new MoorageError('invalid_params', 'A secret is said as { name, server?, principal?, value }.');
}
