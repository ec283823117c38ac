import fc from 'fast-check';
import { expect, test } from 'vitest';
import {
  type EndedStream,
  givenUp,
  KEPT_MS,
  SESSION_BYTES,
  TOTAL_BYTES,
  TOTAL_STREAMS,
} from '../../origin/journal/bounds.ts';

const ended = (id: string, endedAt: number, bytes = 10, session = 's'): EndedStream => ({
  id,
  session,
  bytes,
  endedAt,
});
const whole = (streams: readonly EndedStream[], running = 0) => ({
  streams: streams.length + running,
  bytes: streams.reduce((sum, { bytes }) => sum + bytes, 0),
});

test('what is young and little stays', () => {
  const streams = [ended('a', 1), ended('b', 2)];
  expect(givenUp(streams, whole(streams), 2)).toEqual([]);
});

test('what is too old goes', () => {
  const streams = [ended('old', 0), ended('young', 1)];
  expect(givenUp(streams, whole(streams), KEPT_MS)).toEqual(['old']);
});

test('a session that holds too much loses its oldest, others lose nothing', () => {
  const half = SESSION_BYTES / 2;
  const streams = [ended('1', 1, half), ended('2', 2, half), ended('3', 3, half), ended('other', 0, half, 'other')];
  expect(givenUp(streams, whole(streams), 3)).toEqual(['1']);
});

test('too many in all: the oldest go, and room is made for more than one', () => {
  const streams = Array.from({ length: TOTAL_STREAMS + 1 }, (_, n) => ended(String(n), n, 1, String(n)));
  const gone = givenUp(streams, whole(streams), TOTAL_STREAMS);
  expect(gone.length).toBeGreaterThan(TOTAL_STREAMS / 20);
  expect(gone[0]).toBe('0');
});

test('for any streams: afterwards every bound holds', () => {
  const stream = fc.record({
    session: fc.constantFrom('a', 'b', 'c'),
    bytes: fc.integer({ min: 1, max: SESSION_BYTES }),
    endedAt: fc.nat({ max: 2 * KEPT_MS }),
  });
  fc.assert(
    fc.property(fc.array(stream, { maxLength: 60 }), (list) => {
      const streams = list.map((entry, n) => ({ id: String(n), ...entry }));
      const now = 2 * KEPT_MS;
      const gone = new Set(givenUp(streams, whole(streams), now));
      const left = streams.filter(({ id }) => !gone.has(id));
      expect(left.every(({ endedAt }) => endedAt + KEPT_MS > now)).toBe(true);
      for (const [, own] of Map.groupBy(left, ({ session }) => session)) {
        expect(whole(own).bytes).toBeLessThanOrEqual(SESSION_BYTES);
      }
      expect(whole(left).bytes).toBeLessThanOrEqual(TOTAL_BYTES);
    }),
  );
});
