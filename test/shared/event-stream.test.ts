import fc from 'fast-check';
import { expect, test } from 'vitest';
import { eventText, formatEventId, parseEventId, primingText, type StreamKind } from '../../shared/event-stream.ts';

test.each([
  ['o.AbC-d_9z.0', { kind: 'origin', stream: 'AbC-d_9z', n: 0 }],
  ['e.AbC-d_9z.12', { kind: 'edge', stream: 'AbC-d_9z', n: 12 }],
  ['s.AbC-d_9z.999', { kind: 'session', stream: 'AbC-d_9z', n: 999 }],
])('%s', (text, id) => {
  expect(parseEventId(text)).toEqual(id);
});

test.each([
  '',
  'o.AbC-d_9z',
  'x.AbC-d_9z.1',
  'o.short.1',
  'o.AbC-d_9z.01',
  'o.AbC-d_9z.-1',
  'o.AbC-d_9z.1\n',
  'o.a/../b_c.1',
])('no id of ours: %j', (text) => {
  expect(parseEventId(text)).toBeUndefined();
});

test('any id comes back as it went out', () => {
  const kind = fc.constantFrom<StreamKind>('origin', 'edge', 'session');
  const stream = fc.stringMatching(/^[A-Za-z0-9_-]{8,32}$/);
  fc.assert(
    fc.property(fc.record({ kind, stream, n: fc.nat() }), (id) => {
      expect(parseEventId(formatEventId(id))).toEqual(id);
    }),
  );
});

test('events as they are on the wire', () => {
  expect(eventText('o.AbC-d_9z.1', '{}')).toBe('id: o.AbC-d_9z.1\nevent: message\ndata: {}\n\n');
  expect(primingText('o.AbC-d_9z.0')).toBe('id: o.AbC-d_9z.0\nretry: 3000\ndata: \n\n');
});
