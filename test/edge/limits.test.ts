import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { addressOf } from '../../edge/limits/address.ts';
import { Addresses, MAX_ADDRESSES } from '../../edge/limits/addresses.ts';
import { afterOne, remainingOf, settled, waitOf } from '../../edge/limits/bucket.ts';
import { type Asked, LEASE_MS, Ledger, MAX_KEYS } from '../../edge/limits/ledger.ts';
import { holding } from '../../edge/limits/slot.ts';
import { type CallerLimits, callerLimits } from '../../shared/config/quotas.ts';
import { ConfigError, parseConfigObject } from '../../shared/config.ts';

const rate = fc.record({
  amount: fc.integer({ min: 1, max: 5000 }),
  window: fc.constantFrom(1, 60, 3600, 86_400),
  burst: fc.integer({ min: 1, max: 200 }),
});
/** Times between requests: bursts, pauses, and clocks that are set back. */
const gaps = fc.array(fc.oneof(fc.constant(0), fc.integer({ min: -50, max: 5000 })), { minLength: 1, maxLength: 200 });

describe('a bucket', () => {
  test('lets no more through in any stretch of time than its burst and its rate', () => {
    fc.assert(
      fc.property(rate, fc.array(fc.integer({ min: 0, max: 5000 }), { maxLength: 200 }), (limit, steps) => {
        const interval = (limit.window * 1000) / limit.amount;
        const through: number[] = [];
        let [now, fullAt] = [1_000_000, 0];
        for (const step of steps) {
          now += step;
          if (waitOf(fullAt, limit, now) > 0) continue;
          fullAt = afterOne(fullAt, limit, now);
          through.push(now);
        }
        for (const [first, from] of through.entries()) {
          for (let last = first; last < through.length; last++) {
            const stretch = (through[last] as number) - from;
            expect(last - first + 1).toBeLessThanOrEqual(limit.burst + stretch / interval + 1e-6);
          }
        }
      }),
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
const ask = (more: Partial<Asked> = {}): Asked => ({ session: null, server: 'a', counted: false, call: null, ...more });

describe('a ledger', () => {
  test('another session is no other allowance', () => {
    const ledger = new Ledger();
    const set = parsed({ perPrincipal: { rate: '60/m', burst: 5 }, perSession: { rate: '60/m', burst: 2 } });
    const verdicts = Array.from({ length: 8 }, (_, n) => ledger.take(ask({ session: `s${n}` }), set, 0));
    expect(verdicts.map(({ allowed }) => allowed)).toEqual([...Array(5).fill(true), false, false, false]);
    expect(verdicts[5]).toMatchObject({ by: 'principal', waitMs: 1000 });
  });

  test('what one limit refuses counts against none', () => {
    const ledger = new Ledger();
    const set = parsed({ perPrincipal: { rate: '60/m', burst: 3 }, perServer: { rate: '60/m', burst: 1 } });
    expect(ledger.take(ask(), set, 0).allowed).toBe(true);
    for (let n = 0; n < 10; n++) expect(ledger.take(ask(), set, 0)).toMatchObject({ by: 'server' });
    expect(ledger.take(ask({ server: 'b' }), set, 0)).toMatchObject({
      allowed: true,
      standings: [
        { name: 'principal', quota: 60, window: 60, remaining: 1, resetS: 2 },
        { name: 'server', quota: 60, window: 60, remaining: 0, resetS: 1 },
      ],
    });
  });

  test('what came by way of /mcp counts for its server alone', () => {
    const ledger = new Ledger();
    const set = parsed({ perPrincipal: { rate: '1/m', burst: 1 }, perServer: '60/m', daily: 1, concurrent: 1 });
    for (let n = 0; n < 5; n++) {
      expect(ledger.take(ask({ counted: true, call: `c${n}` }), set, 0).allowed).toBe(true);
    }
    expect(ledger.take(ask({ server: null, call: 'outer' }), set, 0).allowed).toBe(true);
  });

  test('calls at the same time: a slot comes back when its call ends, or when nobody says that it runs', () => {
    const ledger = new Ledger();
    const set = parsed({ concurrent: 2 });
    const take = (call: string, now: number) => ledger.take(ask({ call }), set, now).allowed;
    expect([take('a', 0), take('b', 0), take('c', 0)]).toEqual([true, true, false]);
    expect(ledger.take(ask(), set, 0).allowed).toBe(true);
    ledger.release('a');
    expect(take('c', 1)).toBe(true);
    ledger.renew('b', set, LEASE_MS - 1);
    expect(ledger.running(LEASE_MS + 1)).toBe(1);
    expect(ledger.running(2 * LEASE_MS)).toBe(0);
  });

  test('calls of a day, which is over at midnight (UTC)', () => {
    const ledger = new Ledger();
    const set = parsed({ daily: 2 });
    const noon = Date.UTC(2026, 6, 1, 12);
    const take = (now: number) => ledger.take(ask({ call: 'x' }), set, now);
    expect([take(noon).allowed, take(noon).allowed]).toEqual([true, true]);
    expect(take(noon)).toMatchObject({ allowed: false, by: 'daily', waitMs: 12 * 3_600_000 });
    expect(take(noon + 12 * 3_600_000).allowed).toBe(true);
  });

  test('a restart forgets nothing that counts, and what counts for nothing is not kept', () => {
    const set = parsed({ perPrincipal: { rate: '60/m', burst: 2 }, daily: 10 });
    const ledger = new Ledger();
    for (let n = 0; n < 2; n++) ledger.take(ask({ call: `c${n}` }), set, 0);
    const kept = ledger.state(0);
    expect(kept?.until).toBe(86_400_000);
    expect(new Ledger(kept?.state).take(ask(), set, 0).allowed).toBe(false);
    expect(ledger.state(86_400_001)).toBeNull();
  });

  test('sessions that were never opened fill nothing beyond its bound, and displace nobody', () => {
    const ledger = new Ledger();
    const set = parsed({ perPrincipal: { rate: '1000000/s', burst: 100_000 }, perSession: { rate: '1/h', burst: 1 } });
    for (let n = 0; n < MAX_KEYS + 100; n++) ledger.take(ask({ session: `s${n}` }), set, 0);
    expect(ledger.state(0)?.state.fullAt.length).toBeLessThanOrEqual(MAX_KEYS);
    expect(ledger.take(ask({ session: 's0' }), set, 0).allowed).toBe(false);
  });

  test('slots: never more than there are, whatever happens', () => {
    const step = fc.record({
      what: fc.constantFrom('take' as const, 'release' as const, 'renew' as const),
      call: fc.constantFrom('a', 'b', 'c', 'd', 'e'),
      after: fc.integer({ min: 0, max: LEASE_MS }),
    });
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 4 }), fc.array(step, { maxLength: 60 }), (concurrent, steps) => {
        const ledger = new Ledger();
        const set: CallerLimits = { concurrent };
        const running = new Set<string>();
        let now = 0;
        for (const [n, { what, call, after }] of steps.entries()) {
          // As a Worker does it: what runs is renewed in time, what ended is not renewed any more.
          now += after / 4;
          for (const each of running) ledger.renew(each, set, now);
          const id = `${call}${n}`;
          if (what === 'take' && ledger.take(ask({ call: id }), set, now).allowed) running.add(id);
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
      }),
    );
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

test('rates have a burst, and are told to the edge as they were read', () => {
  const set = parsed({ perPrincipal: '600/m', perIp: '5/s', perServer: { rate: '10/h', burst: 3 } });
  expect(set).toEqual({
    perPrincipal: { amount: 600, window: 60, burst: 60 },
    perIp: { amount: 5, window: 1, burst: 5 },
    perServer: { amount: 10, window: 3600, burst: 3 },
  });
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
