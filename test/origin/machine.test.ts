import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { ABSENT, type MachineEvent, type MachineState, pauseAfter, step } from '../../origin/supervisor/machine.ts';

/** Runs events from `absent`; the driver's answers are part of the events. */
function run(events: readonly MachineEvent[], now = 0) {
  let state: MachineState = ABSENT;
  const effects = [];
  for (const event of events) {
    const next = step(state, event, now);
    state = next.state;
    effects.push(...next.effects.map((effect) => effect.type));
  }
  return { state, effects };
}

describe('machine', () => {
  test.each<[string, MachineEvent[], MachineState['name'], string[]]>([
    ['the first call boots', [{ type: 'want' }], 'booting', ['boot']],
    [
      'calls during a boot share it',
      [{ type: 'want' }, { type: 'want' }, { type: 'booted' }],
      'running',
      ['boot', 'ready'],
    ],
    [
      'a running machine is ready at once',
      [{ type: 'want' }, { type: 'booted' }, { type: 'want' }],
      'running',
      ['boot', 'ready', 'ready'],
    ],
    [
      'a failed boot refuses all who wait',
      [{ type: 'want' }, { type: 'boot-failed', reason: 'x' }],
      'failed',
      ['boot', 'refuse', 'report'],
    ],
    [
      'a lost machine boots again at the next call',
      [{ type: 'want' }, { type: 'booted' }, { type: 'gone', reason: 'x' }, { type: 'want' }],
      'booting',
      ['boot', 'ready', 'report', 'boot'],
    ],
    [
      'a stop during a boot is kept',
      [{ type: 'want' }, { type: 'stop' }, { type: 'booted' }],
      'stopping',
      ['boot', 'refuse', 'stop'],
    ],
    [
      'a call during a stop boots after it',
      [{ type: 'want' }, { type: 'booted' }, { type: 'stop' }, { type: 'want' }, { type: 'gone', reason: '' }],
      'booting',
      ['boot', 'ready', 'stop', 'boot'],
    ],
    ['stopping what never ran does nothing', [{ type: 'stop' }], 'absent', []],
  ])('%s', (_name, events, state, effects) => {
    const result = run(events);
    expect(result.state.name).toBe(state);
    expect(result.effects).toEqual(effects);
  });

  test('a failed machine refuses until its pause is over, then boots; the pause doubles up to a minute', () => {
    const failed = run([{ type: 'want' }, { type: 'boot-failed', reason: 'no disk' }]).state;
    expect(step(failed, { type: 'want' }, 999).effects).toEqual([
      { type: 'refuse', reason: 'no disk', retryAfterMs: 1 },
    ]);
    expect(step(failed, { type: 'want' }, 1000).effects).toEqual([{ type: 'boot' }]);
    expect([1, 2, 3, 20].map(pauseAfter)).toEqual([1000, 2000, 4000, 60_000]);
  });

  test('whatever happens: never two boots at once, and every call is answered when a boot ends', () => {
    const event = fc.constantFrom<MachineEvent['type']>('want', 'booted', 'boot-failed', 'gone', 'stop');
    fc.assert(
      fc.property(fc.array(event, { maxLength: 60 }), (types) => {
        let state: MachineState = ABSENT;
        let boots = 0;
        let waiting = 0;
        let now = 0;
        for (const type of types) {
          // The driver answers only what it was asked.
          if ((type === 'booted' || type === 'boot-failed') && boots === 0) continue;
          if (type === 'gone' && !['running', 'stopping'].includes(state.name)) continue;
          now += 500;
          if (type === 'booted' || type === 'boot-failed') boots--;
          if (type === 'want') waiting++;
          const next = step(state, type === 'gone' || type === 'boot-failed' ? { type, reason: 'r' } : { type }, now);
          state = next.state;
          for (const effect of next.effects) {
            if (effect.type === 'boot') boots++;
            if (effect.type === 'ready' || effect.type === 'refuse') waiting = 0;
          }
          expect(boots).toBeLessThanOrEqual(1);
          expect(boots === 1).toBe(state.name === 'booting');
          if (!['booting', 'stopping'].includes(state.name)) expect(waiting).toBe(0);
        }
      }),
    );
  });
});
