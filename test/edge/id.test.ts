import { expect, test } from 'vitest';
import { isSessionId, mintSessionId, sessionObjectName } from '../../edge/session/id.ts';

const key = (secret: string) =>
  crypto.subtle.importKey('raw', Buffer.from(secret.padEnd(32)), { name: 'HMAC', hash: 'SHA-256' }, false, ['sign']);
const random = Uint8Array.from({ length: 16 }, (_, n) => n * 13);

test('an id is good for the server that it was minted for, under the same secret', async () => {
  const id = await mintSessionId(await key('a'), 'notes', random);
  expect(id).toMatch(/^[A-Za-z0-9_-]{38}$/);
  expect(await isSessionId(await key('a'), 'notes', id)).toBe(true);
  expect(await isSessionId(await key('a'), 'other', id)).toBe(false);
  expect(await isSessionId(await key('b'), 'notes', id)).toBe(false);
});

test('every other spelling is refused', async () => {
  const secret = await key('a');
  const id = await mintSessionId(secret, 'notes', random);
  const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_';
  for (let at = 0; at < id.length; at++) {
    for (const character of alphabet) {
      if (character === id[at]) continue;
      expect(await isSessionId(secret, 'notes', id.slice(0, at) + character + id.slice(at + 1))).toBe(false);
    }
  }
  for (const other of ['', id.slice(1), `${id}A`, `${id}=`, ` ${id}`, '\u0000'.repeat(38)]) {
    expect(await isSessionId(secret, 'notes', other)).toBe(false);
  }
});

test('without shards a session has an object of its own; with them it stays in one of N', async () => {
  const secret = await key('a');
  const names = new Set<string>();
  for (let n = 0; n < 200; n++) {
    const id = await mintSessionId(secret, 'notes', crypto.getRandomValues(new Uint8Array(16)));
    expect(sessionObjectName(id, 0)).toBe(id);
    expect(sessionObjectName(id, 4)).toBe(sessionObjectName(id, 4));
    names.add(sessionObjectName(id, 4));
  }
  expect([...names].sort()).toEqual(['shard-0', 'shard-1', 'shard-2', 'shard-3']);
});
