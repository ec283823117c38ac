import { expect, test } from 'vitest';
import { passes } from '../../shared/glob.ts';

test.each([
  ['everything__echo', ['*'], true],
  ['everything__echo', ['everything__*'], true],
  ['everything__echo', ['*', '!*__echo'], false],
  ['everything__echo', ['!*__echo'], false],
  ['everything__echo', ['every*__e*o'], true],
  ['aba', ['ab*ba'], false],
  ['everything__echo', [], false],
  ['a', ['a'], true],
])('%s passes %j: %s', (name, patterns, expected) => {
  expect(passes(name, patterns)).toBe(expected);
});

test('no pattern is slow', () => {
  expect(passes('a'.repeat(64), [`${'a*'.repeat(2000)}b`])).toBe(false);
});
