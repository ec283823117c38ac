/** What clients of the stateless era are told about caching, as a table. */
import { expect, test } from 'vitest';
import { hinted, lifetimeOf } from '../../edge/discovery/hints.ts';

test.each([
  ['nothing was said', {}, 7, { ttlMs: 0, cacheScope: 'private' }],
  ['to be asked again each time', { ttlMs: 0, cacheScope: 'public' }, 7, { ttlMs: 0, cacheScope: 'public' }],
  ['a lifetime that runs', { ttlMs: 10, cacheScope: 'public' }, 7, { ttlMs: 3, cacheScope: 'public' }],
  ['a lifetime that is over', { ttlMs: 5, cacheScope: 'private' }, 7, { ttlMs: 0, cacheScope: 'private' }],
  ['half of it', { ttlMs: 10 }, 0, { ttlMs: 10, cacheScope: 'private' }],
  ['what nobody knows yet', { ttlMs: 'later', cacheScope: 'tenant' }, 7, { ttlMs: 'later', cacheScope: 'tenant' }],
])('%s', (_, said, age, told) => {
  expect(hinted({ tools: [], ...said }, age)).toEqual({ tools: [], ...told });
});

test('what lacks nothing is the same object: it passes as it came', () => {
  const result = { tools: [], ttlMs: 5, cacheScope: 'private' };
  expect(hinted(result)).toBe(result);
});

test('zero is no lifetime: it is what SDKs write where a server says nothing', () => {
  expect([{}, { ttlMs: 0 }, { ttlMs: -1 }, { ttlMs: 'x' }, { ttlMs: 5 }].map(lifetimeOf)).toEqual([
    null,
    null,
    null,
    null,
    5,
  ]);
});
