import { expect, test } from 'vitest';
import { MAX_EVENTS, Outbox } from '../../origin/link/outbox.ts';
import { upFrame } from '../../shared/link.ts';

const message = (n: number) => ({ jsonrpc: '2.0' as const, method: 'notifications/message', params: { n } });
const numbers = (frames: readonly string[]) => frames.map((frame) => (JSON.parse(frame) as { seq: number }).seq);

test('events are valid frames, numbered from one, and kept until they are acknowledged', () => {
  const outbox = new Outbox();
  const frames = [1, 2, 3].map((n) => outbox.add(['s'], message(n)) ?? '');
  for (const frame of frames) expect(upFrame.parse(JSON.parse(frame)).type).toBe('event');
  expect(numbers(outbox.unacknowledged())).toEqual([1, 2, 3]);
  outbox.acknowledge(2);
  expect(numbers(outbox.unacknowledged())).toEqual([3]);
  outbox.acknowledge(1);
  expect(numbers(outbox.unacknowledged())).toEqual([3]);
});

test('over the bound the oldest go and are counted', () => {
  const outbox = new Outbox();
  for (let n = 0; n < MAX_EVENTS + 5; n++) outbox.add(['s'], message(n));
  expect(outbox.unacknowledged()).toHaveLength(MAX_EVENTS);
  expect(numbers(outbox.unacknowledged())[0]).toBe(6);
  expect(outbox.lost).toBe(5);
});

test('a message too large for a frame is not taken, and costs no number', () => {
  const outbox = new Outbox();
  expect(outbox.add(['s'], { jsonrpc: '2.0', method: 'm', params: { x: 'x'.repeat(2 << 20) } })).toBeUndefined();
  outbox.add(['s'], message(1));
  expect(numbers(outbox.unacknowledged())).toEqual([1]);
  expect(outbox.lost).toBe(1);
});
