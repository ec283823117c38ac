import { Duplex } from 'node:stream';
import { describe, expect, onTestFinished, test, vi } from 'vitest';
import {
  CHANNEL,
  decodeCredit,
  decodeJson,
  encodeEnd,
  encodeFrame,
  encodeJson,
  FRAME,
  type Frame,
  FrameDecoder,
  OUTGOING,
  PROTOCOL_VERSION,
  WINDOW,
} from '../../origin/guest/mux.ts';
import { GuestChannel } from '../../origin/vm/channel.ts';
import { MachineError } from '../../origin/vm/error.ts';

/** A guest under the test's control: it says what it is told to, and records what the host sent. */
function hostileGuest() {
  const sent: Frame[] = [];
  const decoder = new FrameDecoder();
  const pipe = new Duplex({
    read: () => undefined,
    write: (chunk: Buffer, _encoding, done) => {
      sent.push(...decoder.push(chunk));
      done();
    },
  });
  const closed = Promise.withResolvers<MachineError>();
  const channel = new GuestChannel(closed.resolve);
  channel.attach(pipe);
  return { channel, sent, closed: closed.promise, say: (...wire: Buffer[]) => wire.map((frame) => pipe.push(frame)) };
}

const hello = encodeFrame(FRAME.hello, 0, Buffer.from([PROTOCOL_VERSION]));
const cat = { argv: ['cat'], env: {}, cwd: '/' };

async function withProcess() {
  const guest = hostileGuest();
  guest.say(hello);
  await guest.channel.hello;
  const spawned = guest.channel.spawn(cat, 1000);
  guest.say(encodeFrame(FRAME.opened, 1));
  return { ...guest, child: await spawned };
}

test.each([
  ['speaks before its hello', [encodeFrame(FRAME.opened, 1)]],
  ['says hello twice', [hello, hello]],
  ['speaks another version', [encodeFrame(FRAME.hello, 0, Buffer.from([99]))]],
  ['sends rubbish', [hello, Buffer.alloc(64, 0xff)]],
  ['names a stream that was never opened', [hello, encodeFrame(FRAME.stdout, 7, Buffer.from('x'))]],
  ['sends a frame of the host', [hello, encodeFrame(FRAME.open, 1)]],
])('a guest that %s is cut off', async (_name, wire) => {
  const guest = hostileGuest();
  guest.say(...wire);
  expect((await guest.closed).code).toBe('guest-protocol');
  await expect(guest.channel.spawn(cat, 1000)).rejects.toMatchObject({ code: 'guest-protocol' });
});

describe('a guest that says what cannot be a text or a number', () => {
  // String() and Number() of it throw.
  const trap = { toString: 1, valueOf: 1 };

  test.each([
    ['why a process does not start', FRAME.failed, 1, { message: trap }],
    ['how a process ended', FRAME.exit, 1, { code: trap, signal: trap }],
    ['what it answers', FRAME.control, 0, { id: trap }],
    ['why it refuses', FRAME.control, 0, { id: 1, error: trap }],
    ['how long it is to be left awake', FRAME.control, 0, { id: 1, heldMs: [trap] }],
  ])('as %s is cut off', async (_what, type, stream, said) => {
    const guest = hostileGuest();
    guest.say(hello);
    await guest.channel.hello;
    const waiting = [guest.channel.freeze(1000, { force: false }), guest.channel.spawn(cat, 1000)];
    guest.say(encodeJson(type, stream, said));
    expect((await guest.closed).code).toBe('guest-protocol');
    expect(await Promise.allSettled(waiting)).toMatchObject([{ status: 'rejected' }, { status: 'rejected' }]);
  });
});

test('a guest that sends more than an unread stream may hold is cut off', async () => {
  const guest = await withProcess();
  const chunk = encodeFrame(FRAME.stdout, 1, Buffer.alloc(32 * 1024));
  for (let sent = 0; sent < WINDOW; sent += 32 * 1024) guest.say(chunk);
  guest.say(chunk);
  expect((await guest.closed).message).toMatch(/more than its credit/);
  expect(await guest.child.exited).toEqual({ code: null, signal: 'SIGKILL' });
});

test('credit goes back only for what was read', async () => {
  const guest = await withProcess();
  const credits = () =>
    guest.sent.filter(({ type }) => type === FRAME.credit).reduce((sum, frame) => sum + decodeCredit(frame).bytes, 0);
  for (let sent = 0; sent < WINDOW; sent += 32 * 1024) guest.say(encodeFrame(FRAME.stdout, 1, Buffer.alloc(32 * 1024)));
  await new Promise(setImmediate);
  expect(credits()).toBe(0);
  guest.child.stdout.resume();
  await new Promise(setImmediate);
  expect(credits()).toBeGreaterThan(WINDOW / 2);
});

test.each([undefined, 1000])(
  'a reader who empties a full stream at once (by %s) gets the sender going again',
  async (size) => {
    const guest = await withProcess();
    for (let sent = 0; sent < WINDOW; sent += 32 * 1024)
      guest.say(encodeFrame(FRAME.stdout, 1, Buffer.alloc(32 * 1024)));
    await new Promise(setImmediate);
    while (guest.child.stdout.read(size) !== null);
    const credits = guest.sent.filter(({ type }) => type === FRAME.credit).map((frame) => decodeCredit(frame).bytes);
    expect(credits.reduce((sum, bytes) => sum + bytes, 0)).toBeGreaterThan(WINDOW / 2);
  },
);

test('a stream that its owner destroyed keeps being drained, so that the process can go on', async () => {
  const guest = await withProcess();
  guest.child.stdout.destroy();
  for (let sent = 0; sent < WINDOW; sent += 32 * 1024) guest.say(encodeFrame(FRAME.stdout, 1, Buffer.alloc(32 * 1024)));
  await new Promise(setImmediate);
  expect(guest.sent.some(({ type }) => type === FRAME.credit)).toBe(true);
});

test('writes wait for credit', async () => {
  const guest = await withProcess();
  let done = false;
  guest.child.stdin.write(Buffer.alloc(WINDOW + 1), () => {
    done = true;
  });
  await new Promise(setImmediate);
  const bytes = guest.sent
    .filter(({ type }) => type === FRAME.stdin)
    .reduce((sum, frame) => sum + frame.payload.length, 0);
  expect(bytes).toBe(WINDOW);
  expect(done).toBe(false);
});

describe('a guest that asks for connections without end', () => {
  const asking = (from: number) =>
    Buffer.concat(Array.from({ length: 1000 }, (_, n) => encodeJson(FRAME.connect, OUTGOING + from + n, {})));

  test('and reads no answer is not read either, until it does', async () => {
    let unread: (() => void)[] = [];
    let isReading = false;
    const pipe = new Duplex({
      read: () => undefined,
      write: (_chunk, _encoding, done) => (isReading ? done() : unread.push(done)),
    });
    const channel = new GuestChannel(() => undefined);
    channel.attach(pipe);
    pipe.push(hello);
    await channel.hello;
    for (let turn = 0; turn < 40; turn += 1) {
      pipe.push(asking(turn * 1000));
      await new Promise(setImmediate);
    }
    expect(pipe.writableLength).toBeLessThan(1.5 * 1024 * 1024);
    isReading = true;
    for (const done of unread) done();
    unread = [];
    await vi.waitFor(() => expect([pipe.readableLength, pipe.writableLength]).toEqual([0, 0]));
  });

  test('instead of falling silent is cut off', async () => {
    const guest = hostileGuest();
    guest.say(hello);
    await guest.channel.hello;
    const frozen = guest.channel.freeze(60_000, { force: true });
    for (let turn = 0; turn < 70; turn += 1) guest.say(asking(turn * 1000));
    expect((await guest.closed).message).toMatch(/asks on/);
    await expect(frozen).rejects.toMatchObject({ code: 'guest-protocol' });
  });
});

test('output that followed the exit still arrives, and late frames of a finished process are ignored', async () => {
  const guest = await withProcess();
  guest.say(
    encodeJson(FRAME.exit, 1, { code: 3, signal: null }),
    encodeFrame(FRAME.stdout, 1, Buffer.from('last words')),
  );
  guest.say(
    encodeEnd(1, CHANNEL.stdout),
    encodeEnd(1, CHANNEL.stderr),
    encodeFrame(FRAME.stdout, 1, Buffer.from('stale')),
  );
  expect(await guest.child.exited).toEqual({ code: 3, signal: null });
  expect((await guest.child.stdout.toArray()).join('')).toBe('last words');
  const ping = guest.channel.control('ping', 1000);
  await new Promise(setImmediate);
  const request = guest.sent.find(({ type }) => type === FRAME.control);
  guest.say(encodeJson(FRAME.control, 0, { id: request && decodeJson(request).id }));
  await ping;
});

test('a process that does not start in time is refused and killed', async () => {
  const guest = hostileGuest();
  guest.say(hello);
  await guest.channel.hello;
  await expect(guest.channel.spawn(cat, 5)).rejects.toMatchObject({ code: 'guest-timeout' });
  expect(guest.sent.some(({ type }) => type === FRAME.signal)).toBe(true);
});

test('when the pipe closes, waiters and streams learn it', async () => {
  const guest = await withProcess();
  const waiting = guest.channel.control('sync', 1000);
  const lost = new Promise((resolve) => guest.child.stdout.once('error', resolve));
  guest.channel.close(new MachineError('machine-gone', 'gone'));
  await expect(waiting).rejects.toMatchObject({ code: 'machine-gone' });
  expect(await lost).toMatchObject({ code: 'machine-gone' });
  expect(await guest.child.exited).toEqual({ code: null, signal: 'SIGKILL' });
});

describe('a guest that freezes', () => {
  const control = (sent: Frame[]) =>
    sent.filter(({ type }) => type === FRAME.control).map((frame) => decodeJson(frame));
  const reply = (sent: Frame[], said: object) =>
    encodeJson(FRAME.control, 0, { id: control(sent).at(-1)?.id, ...said });

  async function frozen() {
    const guest = await withProcess();
    const freezing = guest.channel.freeze(1000, { force: false });
    await new Promise(setImmediate);
    guest.say(reply(guest.sent, { frozen: true }));
    expect(await freezing).toBe(0);
    return guest;
  }

  test('hears nothing until it thaws, then everything in order', async () => {
    const guest = await frozen();
    const before = guest.sent.length;
    guest.child.stdin.write('later');
    guest.child.kill();
    await new Promise(setImmediate);
    expect(guest.sent.length).toBe(before);
    const thawing = guest.channel.thaw(1000, { ms: 5, fresh: false });
    await new Promise(setImmediate);
    expect(guest.sent.slice(before).map(({ type }) => type)).toEqual([FRAME.control, FRAME.stdin, FRAME.signal]);
    expect(control(guest.sent).at(-1)).toMatchObject({ op: 'thaw', ms: 5, fresh: false });
    guest.say(reply(guest.sent, {}));
    await thawing;
  });

  test('and hears of the time too late when it thaws is told it again, until it is right', async () => {
    const guest = await frozen();
    vi.useFakeTimers({ toFake: ['Date'], now: 1_000_000 });
    onTestFinished(() => void vi.useRealTimers());
    const thawing = guest.channel.thaw(1000, { ms: 1_000_000, fresh: false });
    for (const late of [1_400, 300, 250]) {
      await new Promise(setImmediate);
      vi.setSystemTime(Date.now() + late);
      guest.say(reply(guest.sent, {}));
    }
    await thawing;
    expect(control(guest.sent).slice(1)).toMatchObject([
      { op: 'thaw', ms: 1_000_000 },
      { op: 'time', ms: 1_001_400 },
      { op: 'time', ms: 1_001_700 },
    ]);
  });

  test('and is asked to stay awake for longer goes on at once', async () => {
    const guest = await withProcess();
    const freezing = guest.channel.freeze(1000, { force: false });
    guest.child.stdin.write('now');
    await new Promise(setImmediate);
    expect(guest.sent.some(({ type }) => type === FRAME.stdin)).toBe(false);
    guest.say(reply(guest.sent, { heldMs: 1e300 }));
    expect(await freezing).toBe(24 * 3_600_000);
    expect(guest.sent.some(({ type }) => type === FRAME.stdin)).toBe(true);
  });

  test('and speaks is cut off', async () => {
    const guest = await frozen();
    guest.say(encodeFrame(FRAME.stdout, 1, Buffer.from('x')));
    expect((await guest.closed).message).toMatch(/although it is frozen/);
  });

  test('unasked is cut off', async () => {
    const guest = await withProcess();
    const ping = guest.channel.control('ping', 1000);
    await new Promise(setImmediate);
    guest.say(reply(guest.sent, { frozen: true }));
    await expect(ping).rejects.toMatchObject({ code: 'guest-protocol' });
  });

  test('goes on over another pipe, also for a host that was started anew', async () => {
    const { channel } = await frozen();
    const allow = [{ kind: 'name', host: 'example.com', port: 443 }];
    const egress = { allow, connect: () => undefined, overflow: () => undefined, note: () => undefined };
    const next = new GuestChannel(() => undefined, channel.state, egress);
    const sent: Frame[] = [];
    const decoder = new FrameDecoder();
    const pipe = new Duplex({
      read: () => undefined,
      write: (chunk: Buffer, _encoding, done) => {
        sent.push(...decoder.push(chunk));
        done();
      },
    });
    next.attach(pipe);
    next.processes().get(1)?.stdin.write('later');
    const thawing = next.thaw(1000, { ms: 5, fresh: true });
    await new Promise(setImmediate);
    // What it may reach is told in the same breath, before anything else.
    expect(control(sent)).toMatchObject([
      { op: 'thaw', ms: 5, fresh: true },
      { op: 'egress', allow },
    ]);
    expect(sent.map(({ type }) => type)).toEqual([FRAME.control, FRAME.control, FRAME.stdin]);
    pipe.push(encodeFrame(FRAME.stdout, 1, Buffer.from('still here')));
    for (const { id } of control(sent)) pipe.push(encodeJson(FRAME.control, 0, { id }));
    await thawing;
    expect(String(next.processes().get(1)?.stdout.read())).toBe('still here');
  });
});
