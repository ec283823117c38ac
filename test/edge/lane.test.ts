import { expect, test } from 'vitest';
import { laneId } from '../../edge/lane/id.ts';
import { isSessionId } from '../../edge/session/id.ts';

const key = await crypto.subtle.importKey(
  'raw',
  new TextEncoder().encode('a secret of a test, longer than 32 bytes'),
  { name: 'HMAC', hash: 'SHA-256' },
  false,
  ['sign'],
);

test('a lane is the same every time, and another for another principal or server', async () => {
  const ids = await Promise.all([
    laneId(key, 'notes', 'ada'),
    laneId(key, 'notes', 'bob'),
    laneId(key, 'wiki', 'ada'),
    laneId(key, 'note', 'sada'),
  ]);
  expect(new Set(ids).size).toBe(4);
  expect(await laneId(key, 'notes', 'ada')).toBe(ids[0]);
});

test('a lane is never a session', async () => {
  const id = await laneId(key, 'notes', 'ada');
  expect(id).toMatch(/^lane\.[A-Za-z0-9_-]{32}$/);
  expect(await isSessionId(key, 'notes', id)).toBe(false);
});
