import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { Route } from '../../edge/directory/route.ts';
import type { Told } from '../../edge/discovery/view.ts';
import {
  IDLE_MS,
  MAX_SUBSCRIPTIONS,
  OPENING_MS,
  type SessionEvent,
  type SessionState,
  step,
} from '../../edge/session/session.ts';
import { DEFAULT_DISCOVERY } from '../../shared/link.ts';

const route: Route = {
  runtime: 'vm',
  server: 'notes',
  origin: 'local',
  machine: 'notes',
  deployment: 'd1',
  discovery: DEFAULT_DISCOVERY,
};
const told = (digest = 'a', protocolVersion = '2025-11-25'): Told => ({
  digest,
  protocolVersion,
  logging: true,
  listChanged: ['tools'],
});
const absent: SessionState = { status: 'absent' };
const open = (at = 0): SessionEvent => ({
  type: 'open',
  server: 'notes',
  principal: 'ada',
  route,
  initialize: '{}',
  at,
});
const initialized = (at = 0, asleep = false): SessionEvent => ({ type: 'initialized', told: told(), asleep, at });
const message = (principal = 'ada', at = 0, wakes = true): SessionEvent => ({
  type: 'message',
  principal,
  memory: null,
  wakes,
  at,
});

/** The state after some events. */
const stateAfter = (...events: SessionEvent[]): SessionState =>
  events.reduce<SessionState>((state, event) => step(state, event).state, absent);
const effects = (state: SessionState, event: SessionEvent) => step(state, event).effects.map((effect) => effect.type);

describe('the life of a session', () => {
  test('a message is admitted once initialize was answered, not before', () => {
    expect(effects(absent, message())).toEqual(['refuse']);
    expect(effects(stateAfter(open()), message())).toEqual(['refuse']);
    expect(effects(stateAfter(open(), initialized()), message())).toEqual(['admit']);
  });

  test('another principal finds no session, and cannot end it', () => {
    const state = stateAfter(open(), initialized());
    for (const event of [message('eve'), { type: 'end', principal: 'eve' } as const]) {
      expect(step(state, event)).toMatchObject({ state, effects: [{ type: 'refuse', code: 'session_not_found' }] });
    }
  });

  test('the end forgets the record and tells the origin', () => {
    const state = stateAfter(open(), initialized());
    expect(step(state, { type: 'end', principal: 'ada' })).toEqual({
      state: { status: 'ended' },
      effects: [{ type: 'forget' }, { type: 'tell-origin', route, principal: 'ada' }],
    });
  });

  test('a failed initialize leaves nothing', () => {
    expect(stateAfter(open(), { type: 'initialize-failed' }).status).toBe('ended');
    expect(stateAfter(open(), initialized(), { type: 'initialize-failed' }).status).toBe('open');
  });

  test.each([
    ['open and unused', [open(), initialized()], IDLE_MS],
    ['opening for ever', [open()], OPENING_MS],
    ['used an hour later', [open(), initialized(), message('ada', 3_600_000)], IDLE_MS + 3_600_000],
  ])('expires when it is due: %s', (_, events, due) => {
    const state = stateAfter(...events);
    expect(step(state, { type: 'alarm', at: due - 1, listening: false }).state.status).toBe(state.status);
    expect(step(state, { type: 'alarm', at: due, listening: false }).state.status).toBe('ended');
  });

  test('a client that holds its stream keeps its session', () => {
    const state = stateAfter(open(), initialized(), { type: 'alarm', at: IDLE_MS, listening: true });
    expect(state).toMatchObject({ status: 'open', seenAt: IDLE_MS });
  });

  test('remembers what a fresh process must be told', () => {
    const remember = (memory: Extract<SessionEvent, { type: 'message' }>['memory']): SessionEvent => ({
      type: 'message',
      principal: 'ada',
      memory,
      wakes: true,
      at: 0,
    });
    const state = stateAfter(
      open(),
      initialized(),
      remember({ type: 'log-level', level: 'debug' }),
      remember({ type: 'subscribe', uri: 'a:' }),
      remember({ type: 'subscribe', uri: 'b:' }),
      remember({ type: 'subscribe', uri: 'a:' }),
      remember({ type: 'unsubscribe', uri: 'b:' }),
    );
    expect(state).toMatchObject({ restore: { initialize: '{}', logLevel: 'debug', subscriptions: ['a:'] } });
  });

  test('subscriptions are bounded', () => {
    const subscribe = (n: number): SessionEvent => ({
      type: 'message',
      principal: 'ada',
      memory: { type: 'subscribe', uri: `r:${n}` },
      wakes: true,
      at: 0,
    });
    const full = stateAfter(
      open(),
      initialized(),
      ...Array.from({ length: MAX_SUBSCRIPTIONS }, (_, n) => subscribe(n)),
    );
    expect(step(full, subscribe(MAX_SUBSCRIPTIONS))).toMatchObject({
      state: full,
      effects: [{ type: 'refuse', code: 'overloaded' }],
    });
  });
});

describe('a session that was opened from a copy', () => {
  const sleeping = stateAfter(open(), initialized(0, true));

  test('sleeps through what needs no process, and wakes for what does', () => {
    expect(stateAfter(open(), initialized(0, true), message('ada', 1, false))).toMatchObject({ asleep: true });
    const woken = step(sleeping, message('ada', 1, true));
    expect(woken.state).toMatchObject({ asleep: false });
    expect(woken.effects.map(({ type }) => type)).toEqual(['save', 'admit']);
  });

  test('ends without a word to the origin, which never heard of it', () => {
    expect(effects(sleeping, { type: 'end', principal: 'ada' })).toEqual(['forget']);
  });

  test.each([
    ['as before', told('a'), ['save']],
    ['in another way: the client may ask for its lists again', told('b'), ['save', 'tell-client']],
    ['in another revision: a client cannot follow', told('a', '2025-06-18'), ['forget', 'refuse']],
  ])('when the process introduces itself %s', (_, answer, expected) => {
    expect(effects(sleeping, { type: 'restored', told: answer })).toEqual(expected);
  });

  test('only lists whose changes were promised are told', () => {
    const { effects: said } = step(sleeping, { type: 'restored', told: told('b') });
    expect(said).toContainEqual({ type: 'tell-client', changed: ['tools'] });
  });
});

describe('for any order of events', () => {
  const principal = fc.constantFrom('ada', 'eve');
  const at = fc.integer({ min: 0, max: 3 * IDLE_MS });
  const uri = fc.constantFrom('a:', 'b:', 'c:');
  const memory = fc.oneof(
    fc.constant(null),
    fc.record({ type: fc.constant('log-level' as const), level: fc.constant('info') }),
    fc.record({ type: fc.constantFrom('subscribe' as const, 'unsubscribe' as const), uri }),
  );
  const event: fc.Arbitrary<SessionEvent> = fc.oneof(
    fc.record({
      type: fc.constant('open' as const),
      server: fc.constantFrom('notes', 'other'),
      principal,
      route: fc.constant(route),
      initialize: fc.constant('{}'),
      at,
    }),
    fc.record({
      type: fc.constant('initialized' as const),
      told: fc.constant(told()),
      asleep: fc.boolean(),
      at,
    }),
    fc.record({
      type: fc.constant('restored' as const),
      told: fc.constantFrom(told(), told('b'), told('c', '2025-06-18')),
    }),
    fc.constant({ type: 'initialize-failed' as const }),
    fc.record({ type: fc.constant('message' as const), principal, memory, wakes: fc.boolean(), at }),
    fc.record({ type: fc.constant('listen' as const), principal, at }),
    fc.record({ type: fc.constant('reroute' as const), route: fc.constant({ ...route, deployment: 'd2' }) }),
    fc.record({ type: fc.constant('end' as const), principal }),
    fc.record({ type: fc.constant('alarm' as const), at, listening: fc.boolean() }),
  );
  const history = fc.array(event, { maxLength: 40 });
  const isLive = (state: SessionState) => state.status === 'open' || state.status === 'opening';

  test('nothing is admitted after the end, and nothing leaves it', () => {
    fc.assert(
      fc.property(history, (events) => {
        let state: SessionState = absent;
        for (const next of events) {
          const before = state;
          const result = step(state, next);
          state = result.state;
          if (before.status === 'ended') {
            expect(state.status).toBe('ended');
            expect(result.effects.map((effect) => effect.type)).not.toContain('admit');
          }
        }
      }),
    );
  });

  test('principal and server never change', () => {
    fc.assert(
      fc.property(history, (events) => {
        let state: SessionState = absent;
        for (const next of events) {
          const before = state;
          state = step(state, next).state;
          if (!isLive(before) || !isLive(state)) continue;
          const identity = (live: SessionState) => 'principal' in live && [live.principal, live.server];
          expect(identity(state)).toEqual(identity(before));
        }
      }),
    );
  });

  test('only its own principal is admitted, and only to an open session', () => {
    fc.assert(
      fc.property(history, (events) => {
        let state: SessionState = absent;
        for (const next of events) {
          const before = state;
          const result = step(state, next);
          state = result.state;
          if (next.type === 'open' || !result.effects.some((effect) => effect.type === 'admit')) continue;
          expect(before.status).toBe('open');
          expect('principal' in before && 'principal' in next && before.principal === next.principal).toBe(true);
        }
      }),
    );
  });

  test('a session that ends is forgotten and its origin told, exactly once, and not at all while it sleeps', () => {
    fc.assert(
      fc.property(history, (events) => {
        let state: SessionState = absent;
        let said = 0;
        let asleep = false;
        for (const next of events) {
          const result = step(state, next);
          asleep = 'asleep' in state ? state.asleep : asleep;
          state = result.state;
          said += result.effects.filter((effect) => effect.type === 'tell-origin').length;
        }
        expect(said).toBe(state.status === 'ended' && !asleep ? 1 : 0);
      }),
    );
  });
});
