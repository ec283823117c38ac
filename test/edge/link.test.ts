import { expect, test } from 'vitest';
import { isNew, positionAt } from '../../edge/origin/link.ts';

test('an epoch goes on where it was; another one starts over', () => {
  expect(positionAt({ epoch: 'a' }, undefined)).toEqual({ epoch: 'a', seq: 0 });
  expect(positionAt({ epoch: 'a' }, { epoch: 'a', seq: 7 })).toEqual({ epoch: 'a', seq: 7 });
  expect(positionAt({ epoch: 'b' }, { epoch: 'a', seq: 7 })).toEqual({ epoch: 'b', seq: 0 });
});

test('an event is new beyond the last that was delivered, gaps or not', () => {
  const position = { epoch: 'a', seq: 7 };
  expect([6, 7, 8, 12].map((seq) => isNew(seq, position))).toEqual([false, false, true, true]);
});
