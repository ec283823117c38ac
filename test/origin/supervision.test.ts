/** Servers that keep dying, and servers that do not answer: decided purely, and seen by who starts their processes. */
import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import type { ChannelEvents } from '../../origin/bridge/channel.ts';
import { Correlator } from '../../origin/bridge/correlate.ts';
import { ANSWER_MS, QUIET_MS } from '../../origin/bridge/health.ts';
import type { PeerKind } from '../../origin/bridge/upstreams.ts';
import { type ServerHost, Upstreams } from '../../origin/bridge/upstreams.ts';
import { QUESTION_ID, WatchedChannel } from '../../origin/bridge/watched-channel.ts';
import type { Log } from '../../origin/log.ts';
import { processMachine } from '../../origin/process/driver.ts';
import { Secrets } from '../../origin/secrets/secrets.ts';
import { serverDefinitions } from '../../origin/server.ts';
import { type Crashes, crashed, isLoop, waitOf } from '../../origin/supervisor/crash-loop.ts';
import { MachineError } from '../../origin/vm/error.ts';
import { parseConfig } from '../../shared/config.ts';
import { MoorageError } from '../../shared/errors.ts';
import type { JsonRpcMessage } from '../../shared/jsonrpc.ts';
import { NO_SECRETS } from '../support/origin.ts';

describe('a crash loop', () => {
  test('a few crashes cost nothing, then each twice as much as the one before, a minute at most', () => {
    let crashes: Crashes | undefined;
    const pauses = Array.from({ length: 14 }, () => {
      crashes = crashed(crashes, { livedMs: 10, wasOfUse: false, how: 'exited with code 1' }, 1_000);
      return waitOf(crashes, 1_000) / 1_000;
    });
    expect(pauses).toEqual([0, 0, 0, 0, 0, 1, 2, 4, 8, 16, 32, 60, 60, 60]);
  });

  test('is none of processes that answer something before they end', () => {
    const loop = Array.from({ length: 7 }).reduce<Crashes | undefined>(
      (before) => crashed(before, { livedMs: 10, wasOfUse: false, how: 'x' }, 1_000),
      undefined,
    );
    expect(isLoop(loop)).toBe(true);
    expect(crashed(loop, { livedMs: 10, wasOfUse: true, how: 'was ended by SIGKILL' }, 2_000)).toBeUndefined();
  });

  test('ends when a process lives, or after ten minutes without one', () => {
    fc.assert(
      fc.property(fc.array(fc.tuple(fc.nat(20_000), fc.nat(900_000)), { maxLength: 40 }), (ends) => {
        let crashes: Crashes | undefined;
        let now = 0;
        for (const [livedMs, gapMs] of ends) {
          now += gapMs;
          const before = crashes;
          crashes = crashed(before, { livedMs, wasOfUse: false, how: 'x' }, now);
          if (livedMs >= 10_000) expect(crashes).toBeUndefined();
          else expect(crashes?.count).toBe(before && gapMs < 600_000 ? before.count + 1 : 1);
          expect(waitOf(crashes, now)).toBeLessThanOrEqual(60_000);
          expect(waitOf(crashes, now) > 0).toBe(isLoop(crashes));
        }
      }),
    );
  });
});

let now: number;
let warnings: string[];
const log: Log = {
  debug: () => undefined,
  info: () => undefined,
  warn: (text) => void warnings.push(text),
  error: (text) => void warnings.push(text),
  server: () => undefined,
  machine: () => undefined,
};

beforeEach(() => {
  now = 1_000_000;
  warnings = [];
});

describe('a server whose process keeps dying', () => {
  const [definition] = serverDefinitions(
    parseConfig('{ "mcpServers": { "notes": { "runtime": "process", "command": "sh" } } }'),
  );
  if (!definition) throw new Error('There is no server.');
  const kind = (): PeerKind => ({ mode: 'own', correlator: new Correlator('own', 'n'), unasked: () => undefined });

  function upstreamsOf(script: string): { upstreams: Upstreams; starts: () => number } {
    const machine = processMachine();
    const cwd = mkdtempSync(join(tmpdir(), 'moorage-test-'));
    let starts = 0;
    const host: ServerHost = {
      lease: async () => ({ machine, release: () => undefined }),
      leaseNow: () => undefined,
      whenAwake: () => undefined,
      start: (_definition, running) => {
        starts += 1;
        if (script === '') return Promise.reject(new MachineError('spawn-failed', 'no'));
        return running.spawn({ argv: ['sh', '-c', script], env: {}, cwd });
      },
    };
    return {
      upstreams: new Upstreams({ host, log, secrets: new Secrets(NO_SECRETS), now: () => now }),
      starts: () => starts,
    };
  }

  test('is not started before its pause is over; callers, the log and the list say so', async () => {
    const { upstreams, starts } = upstreamsOf('exit 3');
    for (let n = 0; n < 6; n += 1) {
      await (await upstreams.connect(definition, kind())).closed;
      await new Promise(setImmediate);
    }
    await expect(upstreams.connect(definition, kind())).rejects.toMatchObject({
      code: 'server_failed',
      message: expect.stringMatching(/"notes" is in a crash loop: 6 times in a row.*exited with code 3/),
      data: { cause: 'crash_loop', crashes: 6, retryAfterMs: 1_000 },
    });
    expect(starts()).toBe(6);
    expect(warnings.join()).toContain('server notes in machine notes: crash loop: 6 crashes');
    expect(upstreams.troubles()).toMatchObject([{ server: 'notes', machine: 'notes', trouble: 'crash loop' }]);
    now += 1_000;
    await (await upstreams.connect(definition, kind())).closed;
    expect(starts()).toBe(7);
  });

  test('a start that fails counts; an end that was asked for does not', async () => {
    const failing = upstreamsOf('');
    for (let n = 0; n < 6; n += 1) await failing.upstreams.connect(definition, kind()).catch(() => undefined);
    expect(failing.upstreams.troubles()).toHaveLength(1);
    const obedient = upstreamsOf('cat');
    for (let n = 0; n < 6; n += 1) await (await obedient.upstreams.connect(definition, kind())).end();
    await new Promise(setImmediate);
    expect(obedient.upstreams.troubles()).toEqual([]);
  });
});

describe('a server that says nothing while calls wait', () => {
  let said: JsonRpcMessage[];
  let heard: JsonRpcMessage[];
  let silent: number[];
  let events: ChannelEvents;
  let channel: WatchedChannel;
  let sleeps: boolean;

  beforeEach(() => {
    vi.useFakeTimers();
    [said, heard, silent, sleeps] = [[], [], [], false];
    const inner = (to: ChannelEvents) => {
      events = to;
      return {
        send: (message: JsonRpcMessage) => void said.push(message),
        abandon: () => false,
        unread: 0,
        get asleep() {
          return sleeps;
        },
        closed: new Promise<never>(() => undefined),
        end: async () => undefined,
      };
    };
    channel = new WatchedChannel(
      inner,
      {
        question: { jsonrpc: '2.0', id: QUESTION_ID, method: 'ping' },
        silent: (forMs) => void silent.push(forMs),
        now: Date.now,
      },
      { message: (message) => void heard.push(message), lost: () => undefined },
    );
  });
  afterEach(() => void vi.useRealTimers());

  const call = (id: number, method = 'tools/call') => channel.send({ jsonrpc: '2.0', id, method });
  const answer = (id: number) => events.message({ jsonrpc: '2.0', id, result: {} });
  const asked = () => said.filter((message) => 'method' in message && message.method === 'ping').length;

  test('is asked, and is well when it answers; nobody else sees that', async () => {
    call(1);
    await vi.advanceTimersByTimeAsync(QUIET_MS);
    expect(asked()).toBe(1);
    answer(QUESTION_ID);
    await vi.advanceTimersByTimeAsync(ANSWER_MS);
    expect([silent, channel.silentSince, heard]).toEqual([[], undefined, []]);
    // The question was taken back, so that it holds no machine awake.
    expect(said.at(-1)).toMatchObject({ method: 'notifications/cancelled', params: { requestId: QUESTION_ID } });
    answer(1);
    expect(heard).toHaveLength(1);
  });

  test('is reported when it does not, and again only after a while; any word of it is an answer', async () => {
    call(1);
    await vi.advanceTimersByTimeAsync(QUIET_MS + ANSWER_MS);
    expect(silent).toEqual([QUIET_MS + ANSWER_MS]);
    expect(channel.silentSince).toBeDefined();
    await vi.advanceTimersByTimeAsync(QUIET_MS + ANSWER_MS);
    expect(silent).toHaveLength(2);
    events.message({ jsonrpc: '2.0', method: 'notifications/message', params: {} });
    expect(channel.silentSince).toBeUndefined();
  });

  test.each<[string, () => void]>([
    ['no call waits', () => undefined],
    ['its call was answered', () => answer(1)],
    ['its call was lost', () => events.lost(1, new MoorageError('server_failed', 'x'))],
    [
      'its call was cancelled',
      () => channel.send({ jsonrpc: '2.0', method: 'notifications/cancelled', params: { requestId: 1 } }),
    ],
    [
      'its machine sleeps',
      () => {
        sleeps = true;
      },
    ],
  ])('is not asked when %s', async (what, act) => {
    if (what !== 'no call waits') call(1);
    call(2, 'subscriptions/listen');
    act();
    await vi.advanceTimersByTimeAsync(600_000);
    expect([asked(), silent]).toEqual([0, []]);
  });

  test('is not asked while it talks', async () => {
    call(1);
    for (let n = 0; n < 20; n += 1) {
      await vi.advanceTimersByTimeAsync(QUIET_MS - 1_000);
      events.message({ jsonrpc: '2.0', method: 'notifications/progress', params: { progressToken: 1, progress: n } });
    }
    expect(asked()).toBe(0);
  });
});
