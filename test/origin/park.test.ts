import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  begin,
  type ParkEffect,
  type ParkEvent,
  type ParkState,
  type Question,
  step,
} from '../../origin/bridge/park.ts';
import { MoorageError } from '../../shared/errors.ts';

const question = (n: number): Question => ({ id: `q${n}`, key: `k${n}`, ask: {} });
const answer = { answer: { jsonrpc: '2.0', id: 1, result: {} } } as const;
const RUNNING: ParkState = { name: 'running', round: 1, pending: [] };
const ASKING: ParkState = {
  name: 'asking',
  round: 2,
  asked: [question(1), question(2)],
  pending: [question(3)],
  unsent: false,
};

describe('one step', () => {
  test.each<[string, ParkState, ParkEvent, ParkState['name'], ParkEffect['type'][]]>([
    ['the first question of a breath', RUNNING, { type: 'question', question: question(1) }, 'running', ['collect']],
    ['another one', { ...RUNNING, pending: [question(1)] }, { type: 'question', question: question(2) }, 'running', []],
    ['the breath is over', { ...RUNNING, pending: [question(1)] }, { type: 'collected' }, 'asking', ['put']],
    ['all were taken back meanwhile', RUNNING, { type: 'collected' }, 'running', []],
    ['the server answered', RUNNING, { type: 'outcome', outcome: answer }, 'over', ['settle']],
    ['the client left', RUNNING, { type: 'gone' }, 'over', ['cancel']],
    ['a connection that was answered closes', ASKING, { type: 'gone' }, 'asking', []],
    ['nobody came back', ASKING, { type: 'expired' }, 'over', ['decline', 'decline', 'decline', 'cancel']],
    ['the server does not wait', ASKING, { type: 'outcome', outcome: answer }, 'asking', []],
    ['a retry of another round', ASKING, { type: 'retried', round: 1, responses: {} }, 'asking', ['refuse']],
    [
      'a retry with all answers',
      ASKING,
      { type: 'retried', round: 2, responses: { k1: {}, k2: {} } },
      'running',
      ['reply', 'reply', 'collect'],
    ],
    [
      'a retry that leaves one out',
      ASKING,
      { type: 'retried', round: 2, responses: { k2: {} } },
      'asking',
      ['reply', 'put'],
    ],
    ['a retry after the end', { name: 'over' }, { type: 'retried', round: 2, responses: {} }, 'over', ['refuse']],
    [
      'a retry of what the server already answered',
      { ...ASKING, outcome: answer },
      { type: 'retried', round: 2, responses: {} },
      'over',
      ['settle'],
    ],
    [
      'answers that a call waited for to be sent',
      { ...ASKING, pending: [], unsent: true },
      { type: 'retried', round: 2, responses: { k1: {}, k2: {} } },
      'running',
      ['reply', 'reply', 'forward'],
    ],
  ])('%s', (_what, state, event, next, effects) => {
    const stepped = step(state, event);
    expect(stepped.state.name).toBe(next);
    expect(stepped.effects.map(({ type }) => type)).toEqual(effects);
  });
});

test('whatever happens in whatever order: every reader is settled once, every question answered at most once, nothing follows the end', () => {
  const event: fc.Arbitrary<ParkEvent> = fc.oneof(
    fc.nat(5).map((n): ParkEvent => ({ type: 'question', question: question(n) })),
    fc.nat(5).map((n): ParkEvent => ({ type: 'withdrawn', id: `q${n}` })),
    fc.constantFrom<ParkEvent>(
      { type: 'collected' },
      { type: 'gone' },
      { type: 'expired' },
      { type: 'outcome', outcome: answer },
      { type: 'outcome', outcome: { error: new MoorageError('internal', '') } },
    ),
    fc.tuple(fc.nat(4), fc.subarray(['k0', 'k1', 'k2', 'k3', 'k4', 'k5'])).map(
      ([round, keys]): ParkEvent => ({
        type: 'retried',
        round,
        responses: Object.fromEntries(keys.map((key) => [key, {}])),
      }),
    ),
  );
  fc.assert(
    fc.property(fc.array(event, { maxLength: 60 }), fc.boolean(), (events, orphaned) => {
      const first = begin(orphaned ? [question(0)] : []);
      let state = first.state;
      let hasReader = !first.effects.some(({ type }) => type === 'put');
      let forwarded = first.effects.filter(({ type }) => type === 'forward').length;
      const open = new Set<string>();
      for (const next of events) {
        // Names are unique in life; a reader's connection closes only while it reads.
        if (next.type === 'question' && open.has(next.question.id)) continue;
        if (next.type === 'gone' && !hasReader) continue;
        const before = state;
        const taken = next.type === 'retried' && state.name === 'asking' && state.round === next.round;
        if (taken) hasReader = true;
        if (next.type === 'question' && state.name !== 'over') open.add(next.question.id);
        const stepped = step(state, next);
        state = stepped.state;
        for (const effect of stepped.effects) {
          if (effect.type === 'put' || effect.type === 'settle') {
            expect(hasReader).toBe(true);
            hasReader = false;
          }
          if (effect.type === 'cancel') hasReader = false;
          if (effect.type === 'forward') forwarded++;
          if ((effect.type === 'reply' || effect.type === 'decline') && !(orphaned && effect.id === 'q0'))
            expect(open.delete(effect.id)).toBe(true);
        }
        if (next.type === 'withdrawn') open.delete(next.id);
        if (before.name === 'over') expect(state.name).toBe('over');
        if (state.name === 'running') expect(hasReader).toBe(true);
        if (state.name === 'asking') expect(hasReader).toBe(false);
      }
      expect(forwarded).toBeLessThanOrEqual(1);
    }),
  );
});
