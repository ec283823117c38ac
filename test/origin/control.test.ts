/** The owner's socket: JSON in and out, errors as they were meant, streams, and what a crash left. */
import { mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Hono } from 'hono';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { controlOf } from '../../cli/control.ts';
import { type Control, startControl } from '../../origin/control/control.ts';
import { openLog } from '../../origin/log.ts';
import { MoorageError } from '../../shared/errors.ts';

const state = mkdtempSync(join(tmpdir(), 'moorage-control-'));
const client = controlOf({ config: 'unused', state });
let control: Control;

beforeAll(async () => {
  writeFileSync(join(state, 'control.sock'), 'left by a crash');
  control = await startControl({
    socket: join(state, 'control.sock'),
    routes: {
      '/v1/echo': new Hono()
        .post('/', async (context) => context.json({ got: await context.req.json() }))
        .get('/known', () => {
          throw new MoorageError('overloaded', 'Wait a moment.', { retryAfterMs: 5 });
        })
        .get('/bug', () => {
          throw new Error('a path /of/this/host');
        }),
    },
    sockets: {
      '/v1/mirror': (socket, url) => {
        socket.send(url.searchParams.get('name') ?? '');
        socket.on('message', (data) => socket.send(data));
      },
    },
    log: openLog(join(state, 'logs'), () => {}),
  });
});
afterAll(async () => {
  await control.close();
  rmSync(state, { recursive: true });
});

test('only the owner may open the socket', () => {
  expect(statSync(join(state, 'control.sock')).mode & 0o777).toBe(0o600);
});

test('a request is answered', async () => {
  await expect(client.call('POST', '/v1/echo', { a: 1 })).resolves.toEqual({ got: { a: 1 } });
});

test('an expected failure arrives as it was meant, another shows nothing of this host', async () => {
  await expect(client.call('GET', '/v1/echo/known')).rejects.toMatchObject({
    code: 'overloaded',
    data: { retryAfterMs: 5 },
  });
  const bug = await client.call('GET', '/v1/echo/bug').catch((error: Error) => error);
  expect(bug).toMatchObject({ code: 'internal' });
  expect(String(bug)).not.toContain('/of/this/host');
});

test('a command that this agent does not have is said so', async () => {
  await expect(client.call('GET', '/v1/nothing')).rejects.toMatchObject({ code: 'not_found' });
  await expect(client.stream('/v1/nothing')).rejects.toThrow('404');
});

test('a body beyond the bound is refused', async () => {
  await expect(client.call('POST', '/v1/echo', 'x'.repeat(1024 * 1024 + 1))).rejects.toMatchObject({
    code: 'body_too_large',
  });
});

test('a stream carries both ways', async () => {
  const stream = await client.stream('/v1/mirror?name=notes');
  const heard: string[] = [];
  await new Promise<void>((done) => {
    stream.on('message', (data) => {
      heard.push(String(data));
      if (heard.length === 1) stream.send('hello');
      else done();
    });
    stream.resume();
  });
  expect(heard).toEqual(['notes', 'hello']);
  stream.close();
});
