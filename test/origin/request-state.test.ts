import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { type Binding, RequestStates } from '../../origin/bridge/request-state.ts';
import { MoorageError } from '../../shared/errors.ts';

const states = new RequestStates();
const binding: Binding = {
  principal: 'p',
  lane: 'l',
  request: { method: 'tools/call', params: { name: 'n', arguments: { a: [1], b: {} } } },
};
const sealed = { call: 'c', round: 1, expires: 1_000 };
const opens = (state: unknown, as: Binding = binding, now = 0, by = states) => {
  try {
    return by.open(state, as, now);
  } catch (error) {
    return error instanceof MoorageError ? error.code : error;
  }
};
const request = (params: Record<string, unknown>): Binding => ({
  ...binding,
  request: { method: 'tools/call', params },
});

describe('a sealed state', () => {
  const state = states.seal(sealed, binding);

  test('opens for the same request, whatever its order, `_meta` and answers', () => {
    expect(opens(state)).toEqual(sealed);
    const retry = {
      arguments: { b: {}, a: [1] },
      name: 'n',
      requestState: state,
      inputResponses: { x: {} },
      _meta: { a: 1 },
    };
    expect(opens(state, request(retry))).toEqual(sealed);
  });

  test.each<[string, Binding]>([
    ['another principal', { ...binding, principal: 'q' }],
    ['another lane', { ...binding, lane: 'm' }],
    ['another method', { ...binding, request: { ...binding.request, method: 'prompts/get' } }],
    ['another argument', request({ name: 'n', arguments: { a: [2], b: {} } })],
    [
      'an array that looks like the object',
      request({
        name: 'n',
        arguments: [
          ['a', [1]],
          ['b', []],
        ],
      }),
    ],
    ['no params', { ...binding, request: { method: 'tools/call' } }],
  ])('does not open for %s', (_what, as) => {
    expect(opens(state, as)).toBe('invalid_params');
  });

  test('does not open when it has expired, nor for another agent', () => {
    expect(opens(state, binding, 1_000)).toBe('invalid_params');
    expect(opens(state, binding, 0, new RequestStates())).toBe('invalid_params');
  });

  test('no other text opens', () => {
    fc.assert(
      fc.property(fc.oneof(fc.string(), fc.base64String(), fc.anything()), (other) => {
        expect(opens(other)).toBe('invalid_params');
      }),
    );
    fc.assert(
      fc.property(fc.nat(state.length - 1), fc.constantFrom('A', '-', 'z', '=', ' '), (at, by) => {
        const changed = state.slice(0, at) + by + state.slice(at + 1);
        fc.pre(changed !== state);
        expect(opens(changed)).toBe('invalid_params');
      }),
    );
  });
});
