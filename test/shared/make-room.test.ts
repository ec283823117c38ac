import fc from 'fast-check';
import { expect, test } from 'vitest';
import { type Kept, makeRoom } from '../../shared/make-room.ts';

const ROOM = { messages: 5, bytes: 100 };
const notification = (n: number, bytes = 10): Kept => ({ n, bytes, droppable: true });
const request = (n: number, bytes = 10): Kept => ({ n, bytes, droppable: false });
const held = (row: readonly Kept[]) => ({
  messages: row.length,
  bytes: row.reduce((sum, { bytes }) => sum + bytes, 0),
});
const arrive = (row: readonly Kept[], bytes: number) => makeRoom(row, { bytes }, held(row), ROOM);
const range = (count: number) => Array.from({ length: count }, (_, n) => n + 1);

test('keeps everything while there is room', () => {
  expect(arrive([notification(1)], 10)).toEqual({ drop: [], keep: true });
});

test('the oldest notification gives way when there are too many', () => {
  const row = [request(1), ...range(4).map((n) => notification(n + 1))];
  expect(arrive(row, 10)).toEqual({ drop: [notification(2)], keep: true });
});

test('as many give way as the bytes ask for', () => {
  const row = range(4).map((n) => notification(n, 25));
  expect(arrive(row, 50)).toEqual({ drop: row.slice(0, 2), keep: true });
});

test('nothing gives way to a message that does not fit even so', () => {
  expect(
    arrive(
      range(5).map((n) => request(n)),
      10,
    ),
  ).toEqual({ drop: [], keep: false });
  expect(arrive([notification(1)], 101)).toEqual({ drop: [], keep: false });
});

test('for any arrivals: bounds hold, and nothing that must stay gives way', () => {
  const arrival = fc.record({ bytes: fc.integer({ min: 1, max: 40 }), droppable: fc.boolean() });
  fc.assert(
    fc.property(fc.array(arrival, { maxLength: 60 }), (arrivals) => {
      let row: Kept[] = [];
      arrivals.forEach((incoming, n) => {
        const { drop, keep } = arrive(row, incoming.bytes);
        expect(drop.every(({ droppable }) => droppable)).toBe(true);
        row = row.filter((message) => !drop.includes(message));
        if (keep) row.push({ n, ...incoming });
        expect(held(row).messages).toBeLessThanOrEqual(ROOM.messages);
        expect(held(row).bytes).toBeLessThanOrEqual(ROOM.bytes);
      });
    }),
  );
});
