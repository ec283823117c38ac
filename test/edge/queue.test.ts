import fc from 'fast-check';
import { expect, test } from 'vitest';
import { MAX_QUEUED, MAX_QUEUED_BYTES, makeRoom, type Queued } from '../../edge/session/queue.ts';

const notification = (seq: number, bytes = 10): Queued => ({ seq, bytes, droppable: true });
const request = (seq: number, bytes = 10): Queued => ({ seq, bytes, droppable: false });
const range = (count: number) => Array.from({ length: count }, (_, n) => n + 1);

test('keeps everything while there is room', () => {
  expect(makeRoom([notification(1)], { bytes: 10, droppable: true })).toEqual({ drop: [], keep: true });
});

test('the oldest notification gives way when there are too many', () => {
  const queue = [request(1), ...range(MAX_QUEUED - 1).map((n) => notification(n + 1))];
  expect(makeRoom(queue, { bytes: 10, droppable: true })).toEqual({ drop: [2], keep: true });
});

test('as many give way as the bytes ask for', () => {
  const queue = range(4).map((seq) => notification(seq, MAX_QUEUED_BYTES / 4));
  expect(makeRoom(queue, { bytes: MAX_QUEUED_BYTES / 2, droppable: false })).toEqual({ drop: [1, 2], keep: true });
});

test('nothing gives way to a message that does not fit even so', () => {
  const queue = range(MAX_QUEUED).map((seq) => request(seq));
  expect(makeRoom(queue, { bytes: 10, droppable: false })).toEqual({ drop: [], keep: false });
  expect(makeRoom([notification(1)], { bytes: MAX_QUEUED_BYTES + 1, droppable: false }).keep).toBe(false);
});

test('for any arrivals: bounds hold, and no request is ever dropped for another message', () => {
  const arrival = fc.record({ bytes: fc.integer({ min: 1, max: MAX_QUEUED_BYTES / 4 }), droppable: fc.boolean() });
  fc.assert(
    fc.property(fc.array(arrival, { maxLength: 300 }), (arrivals) => {
      let queue: Queued[] = [];
      arrivals.forEach((incoming, seq) => {
        const { drop, keep } = makeRoom(queue, incoming);
        expect(queue.filter((message) => drop.includes(message.seq)).every((message) => message.droppable)).toBe(true);
        queue = queue.filter((message) => !drop.includes(message.seq));
        if (keep) queue.push({ seq, ...incoming });
        expect(queue.length).toBeLessThanOrEqual(MAX_QUEUED);
        expect(queue.reduce((sum, message) => sum + message.bytes, 0)).toBeLessThanOrEqual(MAX_QUEUED_BYTES);
      });
    }),
  );
});
