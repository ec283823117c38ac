import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { MoorageError } from '../../shared/errors.ts';
import { idOfBadAnswer, kindOf, parseJson, parseMessage, progressTokenOf } from '../../shared/jsonrpc.ts';

const refused = (value: unknown) => {
  try {
    parseMessage(value);
    return undefined;
  } catch (error) {
    return error instanceof MoorageError ? { code: error.code, id: error.data.id } : error;
  }
};

describe('one message', () => {
  test.each([
    ['request', { jsonrpc: '2.0', id: 0, method: 'ping' }],
    ['request', { jsonrpc: '2.0', id: '', method: 'x', params: { a: [1] }, extra: true }],
    ['notification', { jsonrpc: '2.0', method: 'notifications/initialized' }],
    ['notification', { jsonrpc: '2.0', id: undefined, method: 'x' }],
    ['response', { jsonrpc: '2.0', id: 1, result: {} }],
    ['response', { jsonrpc: '2.0', id: 'a', error: { code: -1, message: 'no', data: [1] } }],
    ['response', { jsonrpc: '2.0', id: null, error: { code: -32700, message: 'no' } }],
  ])('%s %j passes through untouched', (kind, value) => {
    expect(parseMessage(value)).toEqual(value);
    expect(kindOf(parseMessage(value))).toBe(kind);
  });

  test.each([
    ['nothing', null, undefined],
    ['a batch', [{ jsonrpc: '2.0', id: 1, method: 'ping' }], undefined],
    ['another version', { jsonrpc: '1.0', id: 1, method: 'ping' }, 1],
    ['a null id', { jsonrpc: '2.0', id: null, method: 'ping' }, undefined],
    ['a fractional id', { jsonrpc: '2.0', id: 1.5, method: 'ping' }, undefined],
    ['params that are a list', { jsonrpc: '2.0', id: 'r', method: 'ping', params: [] }, 'r'],
    ['an empty method', { jsonrpc: '2.0', id: 2, method: '' }, 2],
    ['neither method nor result', { jsonrpc: '2.0', id: 2 }, 2],
  ])('%s is refused, with its id where it has one', (_name, value, id) => {
    expect(refused(value)).toEqual({ code: 'invalid_request', id });
  });

  test('any JSON either parses or is refused with a code', () => {
    fc.assert(
      fc.property(fc.jsonValue(), (value) =>
        [undefined, 'invalid_request'].includes((refused(value) as { code?: string } | undefined)?.code),
      ),
    );
  });
});

test('text that is no JSON is a parse error that does not repeat it', () => {
  expect(() => parseJson('{"secret"')).toThrow(
    expect.objectContaining({ code: 'parse_error', message: expect.not.stringContaining('secret') }),
  );
});

test('progress tokens are strings or numbers, anything else is none', () => {
  const token = (meta: unknown) => progressTokenOf({ jsonrpc: '2.0', id: 1, method: 'x', params: { _meta: meta } });
  expect([
    token({ progressToken: 'a' }),
    token({ progressToken: 0 }),
    token({ progressToken: {} }),
    token(null),
  ]).toEqual(['a', 0, undefined, undefined]);
});

test('nesting is bounded, and what passes can be written again', () => {
  const nested = (levels: number) => JSON.parse(`${'['.repeat(levels)}${']'.repeat(levels)}`) as unknown;
  const message = (levels: number) => ({ jsonrpc: '2.0', method: 'x', params: { deep: nested(levels) } });
  expect(() => JSON.stringify(parseMessage(message(500)))).not.toThrow();
  expect(() => parseMessage(message(100_000))).toThrow('nested');
});

test.each([
  [{ jsonrpc: '2.0', id: 7, error: {} }, 7],
  [{ jsonrpc: '2.0', id: 7, method: 'x', params: 3 }, undefined],
  [{ id: 7, level: 'info' }, undefined],
  [[], undefined],
])('an answer that is no message names who waits in vain: %j', (value, id) => {
  expect(idOfBadAnswer(value)).toBe(id);
});
