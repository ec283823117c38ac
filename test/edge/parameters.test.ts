import { describe, expect, test } from 'vitest';
import { declaredIn, parameterMismatch, parametersOf } from '../../edge/modern/parameters.ts';

const named = (header: unknown, type: unknown = 'string') => ({ type, 'x-mcp-header': header });
const schema = (properties: object) => ({ type: 'object', properties });

describe('a schema', () => {
  test.each<[string, unknown, unknown]>([
    ['names a property', schema({ region: named('Region') }), [{ header: 'region', path: ['region'] }]],
    ['names one within objects', schema({ a: schema({ b: named('X') }) }), [{ header: 'x', path: ['a', 'b'] }]],
    [
      'names one within a list, which is not looked at',
      schema({ a: { type: 'array', items: schema({ b: named('X') }) } }),
      [],
    ],
    ['names nothing', schema({ a: { type: 'string' } }), []],
    ['is none', 'nothing', []],
    ['names a number', schema({ a: named('A', 'number') }), []],
    ['names one twice', schema({ a: named('A'), b: named('a') }), []],
    ['names what no header may be called', schema({ a: named('a b') }), []],
    ['names nothing by an empty name', schema({ a: named('') }), []],
    ['names by something else than text', schema({ a: named(1) }), []],
  ])('that %s', (_, value, parameters) => {
    expect(parametersOf(value)).toEqual(parameters);
  });

  test('of each tool in a list', () => {
    const tools = [{ name: 'a', inputSchema: schema({ x: named('X') }) }, { name: 'b' }, { inputSchema: {} }, 1];
    expect(declaredIn({ tools })).toEqual([
      { tool: 'a', parameters: [{ header: 'x', path: ['x'] }] },
      { tool: 'b', parameters: [] },
    ]);
    expect(declaredIn({})).toEqual([]);
  });
});

describe('a call', () => {
  const parameters = [{ header: 'region', path: ['at', 'region'] }];
  const mismatch = (value: unknown, sent: string | null) =>
    parameterMismatch(parameters, { at: { region: value } }, (name) => (name === 'mcp-param-region' ? sent : null))
      ?.code;

  test.each<[string, unknown, string | null]>([
    ['equal text', 'eu', 'eu'],
    ['text in base64', 'größe', '=?base64?Z3LDtsOfZQ==?='],
    ['equal numbers, written otherwise', 42, '42.0'],
    ['a truth value', true, 'true'],
    ['no value and no header', undefined, null],
    ['null and no header', null, null],
    ['a header without a value', undefined, 'eu'],
    ['a value that is no primitive', { a: 1 }, null],
  ])('with %s agrees', (_, value, sent) => {
    expect(mismatch(value, sent)).toBeUndefined();
  });

  test.each<[string, unknown, string | null]>([
    ['other text', 'eu', 'us'],
    ['text in another case', 'eu', 'EU'],
    ['a value and no header', 'eu', null],
    ['a header that cannot be decoded', 'eu', '=?base64?%?='],
    ['a header that cannot be decoded, and no value', undefined, '=?base64?%?='],
    ['a number in another notation', 26, '0x1a'],
  ])('with %s does not', (_, value, sent) => {
    expect(mismatch(value, sent)).toBe('header_mismatch');
  });

  test('without arguments agrees', () => {
    expect(parameterMismatch(parameters, undefined, () => null)).toBeUndefined();
  });
});
