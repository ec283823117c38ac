import { describe, expect, test } from 'vitest';
import { parseExactly, roundedOf } from '../../shared/exact-json.ts';

describe('a number is written again as it was read where a double cannot hold it', () => {
  test.each([
    ['9007199254740991', '9007199254740991', 'the largest integer that all doubles below hold'],
    ['9007199254740993', '9007199254740993', 'the first that none holds'],
    ['-9223372036854775808', '-9223372036854775808', 'a bound of 64 bits in a schema'],
    ['1152921504606846976', '1152921504606846976', 'a double, whose shortest form has other digits'],
    ['1e400', '1e400', 'would be infinite, and so null'],
    ['1E-400', '1E-400', 'would be zero'],
    ['0.1234567890123456789', '0.1234567890123456789', 'more digits than a double has'],
    ['0.1', '0.1', 'what a double writes the same is left to it'],
    ['5e-324', '5e-324', 'the smallest double'],
    ['1.0', '1', 'the same number in fewer letters'],
    ['-0', '0', 'as JSON.stringify writes it'],
    ['-0.0e10', '0', 'as JSON.stringify writes it'],
    ['1E+2', '100', 'the same number without its power'],
    ['1.50000000000000000000', '1.5', 'zeros say nothing'],
    ['100000000000000000000000', '1e+23', 'the same number with a power'],
    [`1${'0'.repeat(100)}`, `1${'0'.repeat(100)}`, 'too long to be compared'],
  ])('%s is %s: %s', (text, written) => {
    expect(JSON.stringify(parseExactly(`{"a":[${text}], "b": ${text}}`))).toBe(`{"a":[${written}],"b":${written}}`);
  });

  test('text, names and order stay', () => {
    const text = '{"b":"1e400, 9007199254740993","__proto__":{"a":[1e400]},"a":"\\ud800","":null}';
    expect(JSON.stringify(parseExactly(text))).toBe(text);
  });

  test('what is no JSON is refused', () => {
    expect(() => parseExactly('[1e400')).toThrow(SyntaxError);
  });

  test.each([
    ['9007199254740993', 9007199254740992],
    ['1e400', Number.POSITIVE_INFINITY],
    ['7', 7],
    ['"9007199254740993"', '9007199254740993'],
    ['[1]', [1]],
  ])('%s is calculated with as %s', (text, value) => {
    expect(roundedOf((parseExactly(`[${text}]`) as unknown[])[0])).toEqual(value);
  });
});
