import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { addressOf } from '../../edge/limits/address.ts';
import { Addresses, MAX_ADDRESSES } from '../../edge/limits/addresses.ts';
import { afterOne, intervalOf, remainingOf, settled, waitOf } from '../../edge/limits/bucket.ts';
import { type Asked, LEASE_MS, Ledger, MAX_KEYS, type Taken } from '../../edge/limits/ledger.ts';
import { serverRateOf } from '../../edge/limits/settings.ts';
import { MAX_CALLERS, Shares } from '../../edge/limits/shares.ts';
import { holding } from '../../edge/limits/slot.ts';
import { type CallerLimits, callerLimits, type Rate } from '../../shared/config/quotas.ts';
import { ConfigError, parseConfigObject } from '../../shared/config.ts';

const rate = fc.record({
  amount: fc.integer({ min: 1, max: 5000 }),
  window: fc.constantFrom(1, 60, 3600, 86_400),
  burst: fc.integer({ min: 1, max: 200 }),
});
/** Times between requests: bursts, pauses, and clocks that are set back. */
const gaps = fc.array(fc.oneof(fc.constant(0), fc.integer({ min: -50, max: 5000 })), {
  minLength: 1,
  maxLength: 200,
  size: 'max',
});

/** In any stretch of time no more than the burst and the rate. */
function expectWithin(through: readonly number[], limit: Rate): void {
  let most = 0;
  for (const [first, from] of through.entries()) {
    for (const [last, to] of through.entries()) {
      if (last >= first) most = Math.max(most, last - first + 1 - (to - from) / intervalOf(limit));
    }
  }
  expect(most).toBeLessThanOrEqual(limit.burst + 1e-6);
}

describe('a bucket', () => {
  test('lets no more through in any stretch of time than its burst and its rate', () => {
    fc.assert(
      fc.property(
        rate,
        fc.array(fc.integer({ min: 0, max: 5000 }), { maxLength: 200, size: 'max' }),
        (limit, steps) => {
          const through: number[] = [];
          let [now, fullAt] = [1_000_000, 0];
          for (const step of steps) {
            now += step;
            if (waitOf(fullAt, limit, now) > 0) continue;
            fullAt = afterOne(fullAt, limit, now);
            through.push(now);
          }
          expectWithin(through, limit);
        },
      ),
    );
  });

  test('never starves: who waits as told is let through, also when the clock was set back', () => {
    fc.assert(
      fc.property(rate, gaps, (limit, steps) => {
        let [now, fullAt] = [1_000_000, 0];
        for (const step of steps) {
          now += step;
          const wait = waitOf(fullAt, limit, now);
          fullAt = settled(fullAt, limit, now);
          expect(wait).toBeLessThanOrEqual(Math.ceil((limit.window * 1000) / limit.amount) * limit.burst);
          now += wait;
          expect(waitOf(fullAt, limit, now)).toBe(0);
          fullAt = afterOne(fullAt, limit, now);
        }
      }),
    );
  });

  test('says how many are left', () => {
    const limit = { amount: 60, window: 60, burst: 3 };
    let fullAt = 0;
    const left: number[] = [];
    for (let n = 0; n < 3; n++) {
      fullAt = afterOne(fullAt, limit, 1000);
      left.push(remainingOf(fullAt, limit, 1000));
    }
    expect(left).toEqual([2, 1, 0]);
    expect(waitOf(fullAt, limit, 1000)).toBe(1000);
    expect(remainingOf(fullAt, limit, 3000)).toBe(2);
  });
});

const parsed = (given: unknown): CallerLimits =>
  parseConfigObject({ mcpServers: { a: { command: 'x' } }, limits: given }).limits as CallerLimits;
/** As the object does where no server refuses. */
function take(ledger: Ledger, asked: Asked, limits: CallerLimits, now: number): Taken {
  const taken = ledger.hold(asked, limits, now);
  if (taken.allowed) ledger.count(asked, limits, now);
  return taken;
}
const ask = (more: Partial<Asked> = {}): Asked => ({ session: null, server: 'a', counted: false, call: null, ...more });

describe('a ledger', () => {
  test('another session is no other allowance', () => {
    const ledger = new Ledger();
    const set = parsed({ perPrincipal: { rate: '60/m', burst: 5 }, perSession: { rate: '60/m', burst: 2 } });
    const verdicts = Array.from({ length: 8 }, (_, n) => take(ledger, ask({ session: `s${n}` }), set, 0));
    expect(verdicts.map(({ allowed }) => allowed)).toEqual([...Array(5).fill(true), false, false, false]);
    expect(verdicts[5]).toMatchObject({ by: 'principal', waitMs: 1000 });
  });

  test('what one limit refuses counts against none', () => {
    const ledger = new Ledger();
    const set = parsed({
      perPrincipal: { rate: '60/m', burst: 3 },
      perSession: { rate: '60/m', burst: 1 },
      concurrent: 1,
      daily: 2,
    });
    const one = ask({ session: 'a', call: 'x' });
    expect(take(ledger, one, set, 0).allowed).toBe(true);
    ledger.release('x');
    for (let n = 0; n < 10; n++) expect(take(ledger, one, set, 0)).toMatchObject({ by: 'session' });
    const other = ask({ session: 'b', call: 'y' });
    // The server's own limit refuses, elsewhere and later.
    for (let n = 0; n < 10; n++) {
      expect(ledger.hold(other, set, 0).allowed).toBe(true);
      ledger.drop(other, set);
    }
    expect(take(ledger, other, set, 0)).toMatchObject({
      allowed: true,
      standings: [
        { name: 'principal', quota: 60, window: 60, remaining: 1, resetS: 2 },
        { name: 'session', quota: 60, window: 60, remaining: 0, resetS: 1 },
        { name: 'daily', remaining: 0 },
      ],
    });
  });

  test('what is held has its room, and what is dropped never was', () => {
    const limit = { amount: 60, window: 60, burst: 4 };
    const step = fc.record({
      what: fc.constantFrom('hold' as const, 'hold' as const, 'count' as const, 'drop' as const),
      after: fc.integer({ min: 0, max: 1000 }),
    });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 100, size: 'max' }), (steps) => {
        const ledger = new Ledger();
        const set: CallerLimits = { perPrincipal: limit };
        const counted: number[] = [];
        let [now, holding] = [0, 0];
        // The same requests at a bucket that hears only of those that count.
        let fullAt = 0;
        for (const { what, after } of steps) {
          now += after;
          if (what === 'hold') {
            const room = remainingOf(fullAt, limit, now) - holding;
            expect(ledger.hold(ask(), set, now).allowed).toBe(room >= 1);
            if (room >= 1) holding++;
          } else if (holding > 0) {
            holding--;
            if (what === 'drop') ledger.drop(ask(), set);
            else {
              ledger.count(ask(), set, now);
              counted.push(now);
              expect(waitOf(fullAt, limit, now)).toBe(0);
              fullAt = afterOne(fullAt, limit, now);
            }
          }
        }
        expectWithin(counted, limit);
      }),
    );
  });

  test('what came by way of /mcp counts for its server alone', () => {
    const ledger = new Ledger();
    const set = parsed({ perPrincipal: { rate: '1/m', burst: 1 }, perServer: '60/m', daily: 1, concurrent: 1 });
    for (let n = 0; n < 5; n++) {
      expect(take(ledger, ask({ counted: true, call: `c${n}` }), set, 0).allowed).toBe(true);
    }
    expect(take(ledger, ask({ server: null, call: 'outer' }), set, 0).allowed).toBe(true);
  });

  test('calls at the same time: a slot comes back when its call ends, or when nobody says that it runs', () => {
    const ledger = new Ledger();
    const set = parsed({ concurrent: 2 });
    const call = (call: string, now: number) => take(ledger, ask({ call }), set, now).allowed;
    expect([call('a', 0), call('b', 0), call('c', 0)]).toEqual([true, true, false]);
    expect(take(ledger, ask(), set, 0).allowed).toBe(true);
    ledger.release('a');
    expect(call('c', 1)).toBe(true);
    ledger.renew('b', set, LEASE_MS - 1);
    expect(ledger.running(LEASE_MS + 1)).toBe(1);
    expect(ledger.running(2 * LEASE_MS)).toBe(0);
  });

  test('calls of a day, which is over at midnight (UTC)', () => {
    const ledger = new Ledger();
    const set = parsed({ daily: 2 });
    const noon = Date.UTC(2026, 6, 1, 12);
    const call = (now: number) => take(ledger, ask({ call: 'x' }), set, now);
    expect([call(noon).allowed, call(noon).allowed]).toEqual([true, true]);
    expect(call(noon)).toMatchObject({ allowed: false, by: 'daily', waitMs: 12 * 3_600_000 });
    expect(call(noon + 12 * 3_600_000).allowed).toBe(true);
  });

  test('a restart forgets nothing that counts, and what counts for nothing is not kept', () => {
    const set = parsed({ perPrincipal: { rate: '60/m', burst: 2 }, daily: 10 });
    const ledger = new Ledger();
    for (let n = 0; n < 2; n++) take(ledger, ask({ call: `c${n}` }), set, 0);
    const kept = ledger.state(0);
    expect(kept?.until).toBe(86_400_000);
    expect(take(new Ledger(kept?.state), ask(), set, 0).allowed).toBe(false);
    expect(ledger.state(86_400_001)).toBeNull();
  });

  test('sessions that were never opened fill nothing beyond its bound, and displace nobody', () => {
    const ledger = new Ledger();
    const set = parsed({ perPrincipal: { rate: '1000000/s', burst: 100_000 }, perSession: { rate: '1/h', burst: 1 } });
    for (let n = 0; n < MAX_KEYS + 100; n++) take(ledger, ask({ session: `s${n}` }), set, 0);
    expect(ledger.state(0)?.state.fullAt.length).toBeLessThanOrEqual(MAX_KEYS);
    expect(take(ledger, ask({ session: 's0' }), set, 0).allowed).toBe(false);
  });

  test('slots: never more than there are, whatever happens', () => {
    const step = fc.record({
      what: fc.constantFrom('take' as const, 'release' as const, 'renew' as const),
      call: fc.constantFrom('a', 'b', 'c', 'd', 'e'),
      after: fc.integer({ min: 0, max: LEASE_MS }),
    });
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 4 }),
        fc.array(step, { maxLength: 60, size: 'max' }),
        (concurrent, steps) => {
          const ledger = new Ledger();
          const set: CallerLimits = { concurrent };
          const running = new Set<string>();
          let now = 0;
          for (const [n, { what, call, after }] of steps.entries()) {
            // As a Worker does it: what runs is renewed in time, what ended is not renewed any more.
            now += after / 4;
            for (const each of running) ledger.renew(each, set, now);
            const id = `${call}${n}`;
            if (what === 'take' && take(ledger, ask({ call: id }), set, now).allowed) running.add(id);
            if (what === 'release') {
              const [first] = running;
              if (first !== undefined) {
                ledger.release(first);
                running.delete(first);
              }
            }
            expect(ledger.running(now)).toBe(running.size);
            expect(running.size).toBeLessThanOrEqual(concurrent);
          }
        },
      ),
    );
  });
});

describe('the shares of a server', () => {
  const callers = ['a', 'b', 'c', 'd', 'e'];
  const asking = fc.record({ caller: fc.constantFrom(...callers), after: fc.integer({ min: 0, max: 3000 }) });

  test('let no more through in any stretch of time than burst and rate, of all callers together', () => {
    fc.assert(
      fc.property(rate, fc.array(asking, { maxLength: 200, size: 'max' }), (limit, steps) => {
        const shares = new Shares();
        const through: number[] = [];
        let now = 1_000_000;
        for (const { caller, after } of steps) {
          now += after;
          const { waitMs, remaining } = shares.take(caller, limit, now);
          expect(remaining).toBeGreaterThanOrEqual(0);
          if (waitMs === 0) through.push(now);
        }
        expectWithin(through, limit);
      }),
    );
  });

  test('let a caller through that waits as it was told while nobody else asks, also when the clock was set back', () => {
    const step = fc.record({ caller: fc.constantFrom(...callers), after: fc.integer({ min: -50, max: 3000 }) });
    fc.assert(
      fc.property(rate, fc.array(step, { maxLength: 100, size: 'max' }), (limit, steps) => {
        const shares = new Shares();
        let now = 1_000_000;
        for (const { caller, after } of steps) {
          now += after;
          const { waitMs } = shares.take(caller, limit, now);
          if (waitMs === 0) continue;
          expect(waitMs).toBeLessThanOrEqual(Math.ceil(intervalOf(limit) * limit.burst));
          // Nothing changed by having been refused.
          const copy = new Shares(shares.state(now)?.state);
          expect(copy.take(caller, limit, now + waitMs).waitMs).toBe(0);
        }
      }),
    );
  });

  test('say how many more there are for the one who asks', () => {
    fc.assert(
      fc.property(
        rate,
        fc.array(asking, { maxLength: 60, size: 'max' }),
        fc.constantFrom(...callers),
        (limit, steps, caller) => {
          const shares = new Shares();
          let now = 1_000_000;
          for (const each of steps) {
            now += each.after;
            shares.take(each.caller, limit, now);
          }
          let { remaining } = shares.take(caller, limit, now);
          for (; remaining > 0; remaining--) {
            expect(shares.take(caller, limit, now)).toMatchObject({ waitMs: 0, remaining: remaining - 1 });
          }
          expect(shares.take(caller, limit, now).waitMs).toBeGreaterThan(0);
        },
      ),
    );
  });

  test('give a caller alone half of the burst at once, and all of the rate', () => {
    fc.assert(
      fc.property(rate, (limit) => {
        const shares = new Shares();
        const interval = intervalOf(limit);
        let atOnce = 0;
        while (shares.take('a', limit, 0).waitMs === 0) atOnce++;
        expect(Math.abs(atOnce - limit.burst / 2)).toBeLessThanOrEqual(1);
        // It asks ten times as often as one comes back.
        let through = 0;
        for (let n = 1; n <= 1000; n++) if (shares.take('a', limit, (n * interval) / 10).waitMs === 0) through++;
        expect(through).toBeGreaterThanOrEqual(99);
      }),
    );
  });

  test('hold for one who asks no more than its part, whatever the others do', () => {
    const flood = fc.array(fc.record({ n: fc.nat(), after: fc.integer({ min: 0, max: 900 }) }), {
      maxLength: 100,
      size: 'max',
    });
    const flooded = fc.record({
      others: fc.integer({ min: 1, max: 6 }),
      spare: fc.integer({ min: 0, max: 30 }),
      // Not always when a token comes back.
      first: fc.integer({ min: 0, max: 3000 }),
      steps: flood,
    });
    fc.assert(
      fc.property(flooded, ({ others, spare, first, steps }) => {
        // One token a second.
        const limit = { amount: 60, window: 60, burst: (others + 1) * 4 + spare };
        const shares = new Shares();
        let [now, next] = [0, first];
        for (const { n, after } of steps) {
          for (; next <= now + after; next += (others + 1) * 1000)
            expect(shares.take('modest', limit, next)).toMatchObject({ waitMs: 0 });
          now += after;
          while (shares.take(`other ${n % others}`, limit, now).waitMs === 0);
        }
      }),
    );
  });

  test('take from who takes most when another comes, until both have the same', () => {
    const limit = { amount: 60, window: 60, burst: 40 };
    const shares = new Shares();
    const through = { old: 0, fresh: 0 };
    for (let now = 0; now < 60_000; now += 10) shares.take('old', limit, now);
    // The one who comes finds room for what a client asks when it connects.
    for (let n = 0; n < 7; n++) expect(shares.take('fresh', limit, 60_000).waitMs).toBe(0);
    for (let now = 60_010; now < 360_000; now += 10) {
      for (const caller of ['old', 'fresh'] as const)
        if (shares.take(caller, limit, now).waitMs === 0) through[caller]++;
    }
    expect(through.old + through.fresh).toBeGreaterThanOrEqual(295);
    expect(Math.abs(through.old - through.fresh)).toBeLessThanOrEqual(15);
  });

  test('remember who is in debt alone, and of too many forget the one with the least', () => {
    const limit = { amount: 1000, window: 1, burst: 20_000 };
    const shares = new Shares();
    for (let n = 0; n < 100; n++) shares.take('flood', limit, 0);
    for (let n = 0; n < MAX_CALLERS + 500; n++) shares.take(`caller ${n}`, limit, 0);
    expect(shares.size).toBe(MAX_CALLERS);
    expect(shares.state(0)?.state.debts).toContainEqual(['flood', 100]);
    // All together have what they have, whoever was forgotten.
    expect(shares.state(0)?.state.fullAt).toBe(MAX_CALLERS + 600);
    shares.take('flood', limit, MAX_CALLERS + 600);
    expect(shares.size).toBe(1);
    expect(shares.state(MAX_CALLERS + 602)).toBeNull();
  });

  test('survive a restart', () => {
    const limit = { amount: 60, window: 60, burst: 8 };
    const shares = new Shares();
    for (let n = 0; n < 8; n++) shares.take('a', limit, 0);
    const again = new Shares(JSON.parse(JSON.stringify(shares.state(0)?.state)));
    for (let n = 0; n < 3; n++) expect(again.take('b', limit, 1)).toEqual(shares.take('b', limit, 1));
    expect(again.take('a', limit, 1)).toEqual(shares.take('a', limit, 1));
  });
});

test('addresses are bounded, and one that floods keeps nobody else out', () => {
  const table = new Addresses();
  const limit = { amount: 1, window: 60, burst: 2 };
  expect([1, 2, 3].map(() => table.take('evil', limit, 0))).toEqual([0, 0, 60_000]);
  for (let n = 0; n < MAX_ADDRESSES + 50; n++) expect(table.take(`10.0.${n}`, limit, 0)).toBe(0);
  expect(table.size).toBe(MAX_ADDRESSES);
});

test.each<[string, Record<string, string>, string | null, string | null]>([
  ['Cloudflare says it', { 'cf-connecting-ip': '203.0.113.7' }, null, '203.0.113.7'],
  ['nobody says it', { 'x-forwarded-for': '203.0.113.7' }, null, null],
  ['the peer', {}, '203.0.113.7', '203.0.113.7'],
  ['a stranger who claims to be another', { 'x-forwarded-for': '198.51.100.1' }, '203.0.113.7', '203.0.113.7'],
  ['… with the header of Cloudflare', { 'cf-connecting-ip': '198.51.100.1' }, '203.0.113.7', '203.0.113.7'],
  [
    'a proxy of the same host: the last address is the one that it saw',
    { 'x-forwarded-for': '1.1.1.1, 203.0.113.7' },
    '::1',
    '203.0.113.7',
  ],
  ['a socket of the same host', { 'x-forwarded-for': '203.0.113.7' }, 'unix:1000', '203.0.113.7'],
  ['nonsense of a proxy', { 'x-forwarded-for': 'unknown' }, '127.0.0.1', null],
  ['the network of an address of IPv6', {}, '2001:db8:1:2:3:4:5:6', '2001:db8:1:2::/64'],
  ['IPv4 in IPv6', {}, '::ffff:203.0.113.7', '203.0.113.7'],
  ['as workerd tells it, with its port', {}, '203.0.113.7:50000', '203.0.113.7'],
  ['of IPv6, with its port', {}, '[2001:db8:1:2:3:4:5:6]:50000', '2001:db8:1:2::/64'],
  [
    'of another host that says it speaks for one',
    { 'x-forwarded-for': '10.0.0.1' },
    '203.0.113.7:50000',
    '203.0.113.7',
  ],
])('the address of a request: %s', (_, headers, peer, expected) => {
  expect(addressOf(new Headers(headers), peer)).toBe(expected);
});

test.each([
  ['a rate', { perPrincipal: '600' }, /limits\.perPrincipal: write a rate/],
  ['a session’s alone', { perSession: '60/m' }, /limits\.perSession: set "perPrincipal" too/],
  ['an unknown limit', { perUser: '60/m' }, /limits: .*perUser/],
])('the configuration refuses %s', (_, given, problem) => {
  expect(() => parsed(given)).toThrow(ConfigError);
  expect(() => parsed(given)).toThrow(problem);
});

test('a limit of a server that is not there is told to the owner', () => {
  const servers = { a: '60/m', b: '60/m' };
  const { warnings } = parseConfigObject({ mcpServers: { a: { command: 'x' } }, limits: { servers } });
  expect(warnings).toEqual(['limits.servers: no server is named "b" here']);
});

test('rates have a burst, and are told to the edge as they were read', () => {
  const set = parsed({
    perPrincipal: '600/m',
    perIp: '5/s',
    perServer: { rate: '10/h', burst: 3 },
    servers: { a: '100/m' },
  });
  expect(set).toEqual({
    perPrincipal: { amount: 600, window: 60, burst: 60 },
    perIp: { amount: 5, window: 1, burst: 5 },
    perServer: { amount: 10, window: 3600, burst: 3 },
    servers: { a: { amount: 100, window: 60, burst: 20 } },
  });
  expect(['a', 'b', 'toString'].map((server) => serverRateOf(set, server)?.amount)).toEqual([100, 10, 10]);
  expect(callerLimits.parse(JSON.parse(JSON.stringify(set)))).toEqual(set);
});

describe('a slot', () => {
  const open = (cancels: boolean) => {
    const said: string[] = [];
    let end: ReadableStreamDefaultController<Uint8Array> | undefined;
    const body = new ReadableStream<Uint8Array>({
      start(controller) {
        end = controller;
        controller.enqueue(new TextEncoder().encode(': open\n\n'));
      },
    });
    const slot = { release: () => void said.push('released'), abandon: () => void said.push('abandoned') };
    const stream = new Response(body, { headers: { 'content-type': 'text/event-stream' } });
    return { said, end: () => end, slot, held: holding(stream, slot, cancels) };
  };

  test.each([
    ['is given back', true, ['released']],
    ['is left to its lease, for the call goes on', false, ['abandoned']],
  ])('of a client that leaves %s', async (_, cancels, expected) => {
    const { said, held } = open(cancels);
    const reader = held.body?.getReader();
    await reader?.read();
    void reader?.read();
    await reader?.cancel();
    await new Promise((resolve) => setTimeout(resolve));
    expect(said).toEqual(expected);
  });

  test('is given back at the end, or when the stream breaks, or when there is none', async () => {
    const ended = open(false);
    ended.end()?.close();
    expect(await ended.held.text()).toBe(': open\n\n');
    const broken = open(false);
    broken.end()?.error(new Error('lost'));
    await expect(broken.held.text()).rejects.toThrow('lost');
    const { said, slot } = open(false);
    holding(Response.json({}), slot, false);
    expect([ended.said, broken.said, said]).toEqual([['released'], ['released'], ['released']]);
  });
});
