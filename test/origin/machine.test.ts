import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { step } from '../../origin/supervisor/machine.ts';
import { pauseAfter } from '../../origin/supervisor/machine-end.ts';
import {
  ABSENT,
  dueAt,
  loopOf,
  type MachineEffect,
  type MachineEvent,
  type MachineState,
  type SleepPolicy,
} from '../../origin/supervisor/machine-state.ts';

const SLEEPS: SleepPolicy = { pauseAfterMs: 10_000, hibernateAfterMs: 300_000, stopAfterMs: 7 * 86_400_000 };
const AWAKE: MachineState = {
  name: 'running',
  life: { since: 0, wasOfUse: false },
  leases: 0,
  idleSince: 0,
  awakeUntil: 0,
};
const UNITS: Record<string, number> = { s: 1_000, h: 3_600_000, d: 86_400_000 };

type Timed = MachineEvent & { at?: number };

/** `tick@20s`: an event and when it comes. */
function eventOf(text: string): Timed {
  const [type = '', time] = text.split('@');
  const at = time === undefined ? {} : { at: Number.parseInt(time, 10) * (UNITS[time.at(-1) ?? ''] ?? 1) };
  return { type, reason: 'r', forMs: 60_000, ...at } as unknown as Timed;
}

/** Runs events; the driver's answers are part of them. A pause that asks nobody shows as `pause!`. */
function run(events: readonly Timed[], from = 0, sleeps?: SleepPolicy, begin = ABSENT) {
  let state = begin;
  let now = from;
  const effects: string[] = [];
  for (const event of events) {
    now = event.at ?? now;
    const next = step(state, event, now, sleeps);
    state = next.state;
    effects.push(...next.effects.map((effect) => (effect.type === 'pause' && effect.force ? 'pause!' : effect.type)));
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

  test.each<[string, MachineEvent[], MachineState['name'], string[]]>(
    [
      ['an idle machine is paused', ['tick@20s'], 'pausing', ['pause']],
      ['a leased one is not, however long the call is silent', ['want', 'tick@9h'], 'running', ['ready']],
      ['its time counts from the last release', ['want', 'release@60s', 'tick@69s'], 'running', ['ready']],
      ['who asks inside stays awake', ['tick@20s', 'held', 'tick@60s'], 'running', ['pause']],
      ['and is asked again afterwards', ['tick@20s', 'held', 'tick@81s'], 'pausing', ['pause', 'pause']],
      [
        'a call wakes a paused machine',
        ['tick@20s', 'paused', 'want', 'resumed'],
        'running',
        ['pause', 'resume', 'ready'],
      ],
      [
        'a call while it is being paused waits and wakes it',
        ['tick@20s', 'want', 'want', 'paused', 'resumed'],
        'running',
        ['pause', 'resume', 'ready'],
      ],
      ['a paused one is hibernated', ['tick@20s', 'paused', 'tick@400s'], 'hibernating', ['pause', 'hibernate']],
      [
        'a call while it is being hibernated waits and wakes it',
        ['tick@20s', 'paused', 'tick@400s', 'want', 'hibernated', 'want', 'woken'],
        'running',
        ['pause', 'hibernate', 'wake', 'ready'],
      ],
      [
        'what cannot be hibernated stays paused for a while',
        ['tick@20s', 'paused', 'tick@400s', 'hibernate-failed', 'tick@900s'],
        'paused',
        ['pause', 'hibernate', 'report'],
      ],
      [
        'an image that cannot be woken is reported, and the calls that wait get a machine booted from its disk',
        ['tick@20s', 'paused', 'tick@400s', 'hibernated', 'want', 'want', 'wake-failed', 'booted'],
        'running',
        ['pause', 'hibernate', 'wake', 'report', 'boot', 'ready'],
      ],
      [
        'one that is copied is used meanwhile, and does not fall asleep before it was',
        ['want', 'fork', 'want', 'release', 'release', 'tick@9h', 'forked', 'tick@9h'],
        'pausing',
        ['ready', 'fork', 'ready', 'pause'],
      ],
      [
        'one that is put away while it is copied is hibernated when that is over',
        ['want', 'fork', 'stop', 'forked', 'paused', 'hibernated'],
        'hibernated',
        ['ready', 'fork', 'pause!', 'hibernate'],
      ],
      [
        'in the end only its disk is kept',
        ['tick@20s', 'paused', 'tick@400s', 'hibernated', 'tick@8d', 'gone'],
        'stopped',
        ['pause', 'hibernate', 'stop'],
      ],
      [
        'one that is put away while calls run is hibernated without asking anybody',
        ['want', 'stop', 'paused', 'hibernated'],
        'hibernated',
        ['ready', 'pause!', 'hibernate'],
      ],
      [
        'one that is put away while it wakes refuses who waits, and sleeps again',
        ['tick@20s', 'paused', 'tick@400s', 'hibernated', 'want', 'stop', 'woken', 'paused', 'hibernated'],
        'hibernated',
        ['pause', 'hibernate', 'wake', 'refuse', 'pause!', 'hibernate'],
      ],
      [
        'one whose memory others need sleeps at once',
        ['yield', 'paused', 'hibernated'],
        'hibernated',
        ['pause', 'hibernate'],
      ],
      ['a paused one likewise', ['tick@20s', 'paused', 'yield'], 'hibernating', ['pause', 'hibernate']],
      [
        'one that is about to be paused likewise',
        ['tick@20s', 'yield', 'paused'],
        'hibernating',
        ['pause', 'hibernate'],
      ],
      ['one that is in use does not', ['want', 'yield'], 'running', ['ready']],
      ['a call brings it back', ['yield', 'want', 'paused', 'resumed'], 'running', ['pause', 'resume', 'ready']],
      ['who asks inside stays awake nevertheless', ['yield', 'held', 'yield'], 'running', ['pause']],
      [
        'one that is lost while it is woken boots for those who wait',
        ['tick@20s', 'paused', 'want', 'gone'],
        'booting',
        ['pause', 'resume', 'report', 'boot'],
      ],
    ].map(([name, events, ...rest]) => [name, (events as string[]).map(eventOf), ...rest] as never),
  )('%s', (_name, events, state, effects) => {
    const result = run(events, 0, SLEEPS, AWAKE);
    expect(result.state.name).toBe(state);
    expect(result.effects).toEqual(effects);
  });

  describe('that keeps ending by itself', () => {
    const LIFE: MachineEvent[] = [{ type: 'want' }, { type: 'booted' }];
    const END: MachineEvent = { type: 'gone', reason: 'QEMU crashed' };
    const at = (seconds: number, events: readonly MachineEvent[]): Timed[] =>
      events.map((event) => ({ ...event, at: seconds * 1_000 }));
    /** After so many lives of a second, without a pause between them that is not needed. */
    function lives(count: number) {
      let state = ABSENT;
      let now = 0;
      const pauses = Array.from({ length: count }, () => {
        state = run(at(now, LIFE), 0, SLEEPS, state).state;
        now += 1;
        state = run(at(now, [END]), 0, SLEEPS, state).state;
        const pause = state.name === 'failed' ? state.until / 1_000 - now : 0;
        now += pause;
        return pause;
      });
      return { state, now, pauses };
    }

    test('boots at once five times, then after growing pauses, as a server’s process does', () => {
      expect(lives(14).pauses).toEqual([0, 0, 0, 0, 0, 1, 2, 4, 8, 16, 32, 60, 60, 60]);
    });

    test('refuses calls meanwhile, says when to come again, and tells its owner', () => {
      const { state, now } = lives(6);
      expect(step(state, { type: 'want' }, now * 1_000 - 300, SLEEPS).effects).toEqual([
        {
          type: 'refuse',
          reason:
            "It ended by itself soon after it started, 6 times in a row. It may start again in 1 s. Its owner finds the reason in the origin's log.",
          retryAfterMs: 300,
          crashes: 6,
        },
      ]);
      expect(step(state, { type: 'want' }, now * 1_000, SLEEPS).effects).toEqual([{ type: 'boot' }]);
      expect(loopOf(state, now * 1_000)).toMatchObject({ count: 6, how: 'ended by itself: QEMU crashed' });
      const reports = step(run(at(now, LIFE), 0, SLEEPS, state).state, END, now * 1_000 + 500).effects;
      expect(reports).toEqual([
        {
          type: 'report',
          text: 'is in a crash loop: 7 crashes in a row, the last one ended by itself: QEMU crashed; next start in 2 s at the earliest',
        },
      ]);
    });

    test.each<[string, number, (now: number) => Timed[]]>([
      ['that was of use', 1, (now) => at(now, [...LIFE, { type: 'release', useful: true }])],
      ['that has lived for ten seconds', 10, (now) => at(now, [...LIFE, { type: 'release' }])],
      [
        'that slept in order',
        1,
        (now) =>
          at(now, [
            ...LIFE,
            { type: 'release' },
            { type: 'yield' },
            { type: 'paused' },
            { type: 'hibernated' },
            { type: 'want' },
            { type: 'woken' },
          ]),
      ],
    ])('is in no loop any more after a life %s', (_what, seconds, life) => {
      const { state, now } = lives(7);
      const lived = run(life(now), 0, SLEEPS, state).state;
      expect(loopOf(lived, (now + seconds) * 1_000)).toBeUndefined();
      // What ends now is the first again.
      expect(run(at(now + seconds, [END]), 0, SLEEPS, lived).state.name).toBe('stopped');
    });

    test('is counted through boots that fail, and calls that wait are refused', () => {
      const { state, now } = lives(5);
      const booted = run(
        [...at(now, [{ type: 'want' }, { type: 'boot-failed', reason: 'x' }]), ...at(now + 1, LIFE)],
        0,
        SLEEPS,
        state,
      ).state;
      const ending = at(now + 2, [{ type: 'release' }, { type: 'yield' }, { type: 'want' }, { type: 'want' }, END]);
      const { state: failed, effects } = run(ending, 0, SLEEPS, booted);
      expect([failed.name, effects]).toEqual(['failed', ['pause', 'refuse', 'report']]);
    });
  });

  test('an always-on machine has nothing due', () => {
    const never = Number.POSITIVE_INFINITY;
    expect(dueAt(AWAKE, { pauseAfterMs: never, hibernateAfterMs: never, stopAfterMs: never })).toBe(never);
    expect(dueAt(AWAKE, undefined)).toBe(never);
  });

  test('whatever happens: one operation at a time, one QEMU at most, every call answered once, no sleep under a lease', () => {
    const moves = fc.constantFrom('want', 'release', 'wait', 'answer', 'fail', 'crash', 'fork', 'stop', 'yield');
    fc.assert(
      fc.property(fc.array(moves, { maxLength: 80 }), fc.boolean(), (plan, canSleep) => {
        const model = new Model(canSleep ? SLEEPS : undefined);
        for (const move of plan) model.move(move);
        model.finish();
      }),
      { numRuns: 2_000 },
    );
  });
});

/** A driver that does what it is told, fails, or loses its machine; it knows what may exist at once. */
class Model {
  state: MachineState = ABSENT;
  now = 0;
  /** The operation that the driver works on. */
  busy: string | undefined;
  qemu = false;
  image = false;
  waiting = 0;
  leases = 0;
  copies = 0;
  stopped = false;
  readonly sleeps: SleepPolicy | undefined;

  constructor(sleeps: SleepPolicy | undefined) {
    this.sleeps = sleeps;
  }

  move(move: string) {
    this.now += 1_000;
    switch (move) {
      case 'want':
        // After its end the supervisor passes on nothing.
        if (this.stopped) return;
        this.waiting += 1;
        return this.send({ type: 'want' });
      case 'release':
        if (this.leases === 0) return;
        this.leases -= 1;
        return this.send({ type: 'release', useful: this.now % 3_000 === 0 });
      case 'wait': {
        const due = dueAt(this.state, this.sleeps);
        if (due === Number.POSITIVE_INFINITY) return;
        this.now = Math.max(this.now, due);
        return this.send({ type: 'tick' });
      }
      case 'yield':
        return this.send({ type: 'yield' });
      case 'answer':
        return this.answer(true);
      case 'fail':
        return this.answer(false);
      case 'fork':
        // Only who has a lease may ask, and one at a time does.
        if (this.leases === 0 || this.stopped) return;
        return this.send({ type: 'fork' });
      case 'crash':
        if (!this.qemu) return;
        this.qemu = false;
        this.leases = 0;
        // What was under way fails after the machine is known to be gone.
        if (this.busy !== 'boot') this.busy = undefined;
        if (this.busy === 'boot') return this.answer(false);
        return this.send({ type: 'gone', reason: 'crashed' });
      case 'stop':
        this.stopped = true;
        return this.send({ type: 'stop' });
    }
  }

  answer(good: boolean) {
    const operation = this.busy;
    this.busy = undefined;
    switch (operation) {
      case 'boot':
        this.qemu = good;
        return this.send(good ? { type: 'booted' } : { type: 'boot-failed', reason: 'r' });
      case 'pause':
        return this.send(good ? { type: 'paused' } : { type: 'held', forMs: 5_000 });
      case 'resume':
        if (good) return this.send({ type: 'resumed' });
        this.qemu = false;
        return this.send({ type: 'gone', reason: 'r' });
      case 'fork':
        // A copy is whole or not there; the machine that is copied is none the worse.
        if (good) this.copies += 1;
        return this.send({ type: 'forked' });
      case 'hibernate':
        this.qemu = !good;
        this.image = good;
        return this.send(good ? { type: 'hibernated' } : { type: 'hibernate-failed', reason: 'r' });
      case 'wake':
        this.image = false;
        this.qemu = good;
        return this.send(good ? { type: 'woken' } : { type: 'wake-failed', reason: 'r' });
      case 'stop':
        this.qemu = false;
        this.image = false;
        return this.send({ type: 'gone', reason: 'r' });
    }
  }

  send(event: MachineEvent): void {
    const { state, effects } = step(this.state, event, this.now, this.sleeps);
    this.state = state;
    for (const effect of effects) this.act(effect);
    if (!('waiting' in state)) expect(this.waiting).toBe(0);
    if (state.name === 'running' || state.name === 'forking') expect(state.leases).toBe(this.leases);
  }

  act(effect: MachineEffect): void {
    switch (effect.type) {
      case 'ready':
        expect(this.qemu).toBe(true);
        expect(['running', 'forking']).toContain(this.state.name);
        this.leases += this.waiting;
        this.waiting = 0;
        return;
      case 'refuse':
        this.waiting = 0;
        return;
      case 'report':
        return;
      case 'boot':
      case 'wake':
        // Never a second machine on one disk, and an image is resumed at most once.
        expect(this.qemu).toBe(false);
        if (effect.type === 'wake') expect(this.image).toBe(true);
        this.image = effect.type === 'wake';
        break;
      case 'fork':
        expect([this.qemu, this.leases > 0]).toEqual([true, true]);
        break;
      default:
        if (effect.type !== 'stop') expect(this.qemu).toBe(true);
        // Only who puts the whole origin away may interrupt calls.
        if (!this.stopped) expect(this.leases).toBe(0);
        this.leases = 0;
    }
    expect(this.busy).toBeUndefined();
    this.busy = effect.type;
  }

  /** With a driver that works, everybody is answered, and what is put away comes to rest. */
  finish(): void {
    for (let steps = 0; this.busy !== undefined && steps < 20; steps += 1) {
      this.now += 1_000;
      this.answer(true);
    }
    expect([this.busy, this.waiting]).toEqual([undefined, 0]);
    if (this.stopped) expect(['absent', 'stopped', 'hibernated', 'failed']).toContain(this.state.name);
  }
}
