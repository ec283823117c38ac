/** Decoders and correlators against arbitrary servers: nothing throws, nothing is settled twice or reaches another's call. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { EventBound } from '../../origin/bridge/bounded-fetch.ts';
import type { Channel, ChannelEnd, ChannelEvents } from '../../origin/bridge/channel.ts';
import { type Correlates, Correlator } from '../../origin/bridge/correlate.ts';
import { ModernCorrelator } from '../../origin/bridge/correlate-modern.ts';
import { LineSplitter } from '../../origin/bridge/lines.ts';
import { Peer } from '../../origin/bridge/peer.ts';
import type { Log } from '../../origin/log.ts';
import { MoorageError } from '../../shared/errors.ts';
import { parseExactly } from '../../shared/exact-json.ts';
import type { JsonRpcMessage, JsonRpcRequest } from '../../shared/jsonrpc.ts';
import { parseMessage } from '../../shared/jsonrpc.ts';

const bytes = fc.oneof(
  fc.uint8Array({ maxLength: 200 }),
  fc
    .string({ unit: fc.constantFrom('\n', '\r', '{', '"id":1', 'é', 'x') })
    .map((text) => new TextEncoder().encode(text)),
);

describe('lines of arbitrary bytes', () => {
  test('what is short enough comes out as it went in, what is not is reported with its size, and little is kept', () => {
    fc.assert(
      fc.property(fc.array(bytes, { maxLength: 20 }), fc.integer({ min: 1, max: 64 }), (chunks, max) => {
        const splitter = new LineSplitter(max);
        const seen = [...chunks, new Uint8Array([0x0a])].flatMap((chunk) => splitter.push(Buffer.from(chunk)));
        const expected = `${Buffer.concat(chunks).toString('latin1')}\n`
          .split('\n')
          .slice(0, -1)
          .map((line) => Buffer.from(line, 'latin1'));
        const wanted = expected.flatMap((line): object[] => {
          if (line.length > max) return [{ type: 'overlong', bytes: line.length }];
          const text = line.toString('utf8').replace(/\r$/, '');
          return text.trim() === '' ? [] : [{ type: 'line', text }];
        });
        expect(seen.map((line) => (line.type === 'line' ? line : { type: line.type, bytes: line.bytes }))).toEqual(
          wanted,
        );
        for (const line of seen)
          if (line.type === 'overlong') expect(line.head.length + line.tail.length).toBeLessThanOrEqual(512);
      }),
    );
  });
});

test('events of arbitrary bytes: the bound counts one event, however it is cut', () => {
  const piece = fc.constantFrom('\n', '\r\n', '\n\n', 'data: x', ':', 'é'.repeat(9), 'x'.repeat(30));
  fc.assert(
    fc.property(
      fc.array(piece, { maxLength: 40 }),
      fc.array(fc.integer({ min: 1, max: 7 }), { minLength: 1 }),
      (pieces, cuts) => {
        const all = Buffer.from(pieces.join(''));
        const longest = Math.max(
          0,
          ...all
            .toString('latin1')
            .split(/\n\r?\n/)
            .map((event) => event.length),
        );
        const exceeds = (max: number) => {
          const bound = new EventBound(max);
          let exceeded = false;
          for (let at = 0, n = 0; at < all.length; n++) {
            const size = cuts[n % cuts.length] ?? 1;
            exceeded = bound.exceededBy(all.subarray(at, at + size)) || exceeded;
            at += size;
          }
          return exceeded;
        };
        // Where events have many cuts the count is a few bytes high, never low.
        expect(exceeds(longest + all.length + cuts.length + 8)).toBe(false);
        if (longest > 8) expect(exceeds(longest - 8)).toBe(true);
      },
    ),
  );
});

const id = fc.oneof(fc.integer({ min: -1, max: 8 }), fc.constantFrom('a', '1', 'nonce-1', ''), fc.double());
/** What names nothing: String() and Number() throw for some of it. */
const nameless = fc.constantFrom<unknown>(
  { toString: 1, valueOf: 1 },
  Object.create(null),
  parseExactly('9007199254740993'),
  [],
  ['a:'],
  null,
  true,
);
const named = fc.oneof({ weight: 4, arbitrary: id }, { weight: 1, arbitrary: nameless });
const meta = fc.record(
  {
    progressToken: named,
    'io.modelcontextprotocol/subscriptionId': fc.oneof(named, fc.anything()),
    'io.modelcontextprotocol/logLevel': fc.constant('info'),
  },
  { requiredKeys: [] },
);
const params = fc.record(
  {
    progressToken: named,
    requestId: named,
    uri: fc.oneof(fc.constantFrom('a:b', 'a:'), nameless),
    level: nameless,
    _meta: fc.oneof(meta, fc.anything()),
  },
  { requiredKeys: [] },
);
const serverMethod = fc.constantFrom(
  'ping',
  'sampling/createMessage',
  'roots/list',
  'notifications/progress',
  'notifications/cancelled',
  'notifications/message',
  'notifications/resources/updated',
  'notifications/tools/list_changed',
  'x',
  '__proto__',
);
const fromServer = fc
  .oneof(
    fc.record({ jsonrpc: fc.constant('2.0'), id, method: serverMethod, params }),
    fc.record({ jsonrpc: fc.constant('2.0'), method: serverMethod, params }),
    fc.record({
      jsonrpc: fc.constant('2.0'),
      id,
      result: fc.record({ _meta: fc.oneof(meta, fc.anything()) }, { requiredKeys: [] }),
    }),
    fc.record({ jsonrpc: fc.constant('2.0'), id, error: fc.record({ code: fc.integer(), message: fc.string() }) }),
  )
  .map((value): JsonRpcMessage | undefined => {
    try {
      return parseMessage(value);
    } catch {
      return undefined;
    }
  });
const clientMethod = fc.constantFrom(
  'tools/call',
  'resources/subscribe',
  'resources/unsubscribe',
  'subscriptions/listen',
);
type Step =
  | { readonly type: 'ask'; readonly lane: string; readonly message: JsonRpcRequest; readonly abort: boolean }
  | { readonly type: 'say'; readonly message: JsonRpcMessage; readonly via: number | undefined }
  | { readonly type: 'cancel'; readonly lane: string; readonly requestId: unknown }
  | { readonly type: 'lose'; readonly id: number }
  | { readonly type: 'abort' };
const lane = fc.constantFrom('s', 't');
const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 3,
    arbitrary: fc.tuple(lane, id, clientMethod, params, fc.boolean()).map(
      ([l, i, method, p, abort]): Step => ({
        type: 'ask',
        lane: l,
        message: { jsonrpc: '2.0', id: i, method, params: p as Record<string, unknown> },
        abort,
      }),
    ),
  },
  {
    weight: 4,
    arbitrary: fc
      .tuple(fromServer, fc.option(fc.integer({ min: 0, max: 8 }), { nil: undefined }))
      .filter(([m]) => m !== undefined)
      .map(([m, via]): Step => ({ type: 'say', message: m as JsonRpcMessage, via })),
  },
  fc.tuple(lane, id).map(([l, requestId]): Step => ({ type: 'cancel', lane: l, requestId })),
  fc.integer({ min: 0, max: 8 }).map((n): Step => ({ type: 'lose', id: n })),
  fc.constant<Step>({ type: 'abort' }),
);

/** What a peer could not handle: also the tests' own expectations, where a message is taken. */
const faults: string[] = [];
const log: Log = {
  debug: () => undefined,
  info: () => undefined,
  warn: () => undefined,
  error: (text) => void faults.push(text),
  server: () => undefined,
  machine: () => undefined,
};

describe.each<[string, () => Correlates]>([
  ['own', () => new Correlator('own', 'nonce')],
  ['shared', () => new Correlator('shared', 'nonce')],
  ['modern', () => new ModernCorrelator()],
])('a peer with the %s correlator against an arbitrary server', (_mode, correlator) => {
  test('every call is settled at most once, under its own id, and exactly once when the channel ends', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 60 }), async (steps) => {
        let events: ChannelEvents | undefined;
        let end: (end: ChannelEnd) => void = () => undefined;
        const sent: JsonRpcMessage[] = [];
        const channel: Channel = {
          send: (message) => void sent.push(message),
          abandon: () => false,
          unread: 0,
          closed: new Promise((resolve) => {
            end = resolve;
          }),
          end: async () => undefined,
        };
        const peer = new Peer({
          server: 's',
          mode: 'shared',
          correlator: correlator(),
          log,
          sync: () => Promise.resolve(),
          unasked: (to) => expect(to.length).toBeGreaterThan(0),
          open: (given) => {
            events = given;
            return channel;
          },
        });
        for (const each of ['s', 't']) peer.attach(each);
        const calls: { settled: number; aborted: boolean; readonly clientId: unknown }[] = [];
        const aborts: { abort: AbortController; call: { aborted: boolean } }[] = [];
        for (const each of steps) {
          switch (each.type) {
            case 'ask': {
              const call = { settled: 0, aborted: false, clientId: each.message.id };
              const abort = new AbortController();
              calls.push(call);
              if (each.abort) aborts.push({ abort, call });
              peer.request(
                each.lane,
                each.message,
                {
                  open: true,
                  message: () => expect(call.settled).toBe(0),
                  answer: (answer) => {
                    call.settled++;
                    expect(answer.id).toBe(call.clientId);
                  },
                  fail: () => {
                    call.settled++;
                  },
                },
                { signal: abort.signal },
              );
              break;
            }
            case 'say':
              events?.message(each.message, each.via);
              break;
            case 'cancel':
              peer.notify(each.lane, {
                jsonrpc: '2.0',
                method: 'notifications/cancelled',
                params: { requestId: each.requestId },
              });
              break;
            case 'lose':
              events?.lost(each.id, new MoorageError('server_failed', 'lost'));
              break;
            case 'abort': {
              const next = aborts.pop();
              if (next) {
                next.call.aborted = true;
                next.abort.abort();
              }
              break;
            }
          }
        }
        await new Promise((resolve) => setImmediate(resolve));
        end({ what: 'It ended', data: {} });
        await peer.closed;
        await new Promise((resolve) => setImmediate(resolve));
        for (const call of calls) expect(call.settled).toBeLessThanOrEqual(1);
        expect(calls.filter(({ settled, aborted }) => settled === 0 && !aborted)).toEqual([]);
        expect(peer.inFlight).toBe(0);
        for (const message of sent) expect(() => JSON.stringify(message)).not.toThrow();
        expect(faults.splice(0)).toEqual([]);
      }),
      { numRuns: 300 },
    );
  });
});
