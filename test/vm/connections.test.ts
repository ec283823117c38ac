/** Connections of a guest as frames: what a hostile one may not, and how a gateway carries them to a real socket. */
import { createServer, type Server, type Socket } from 'node:net';
import { Duplex } from 'node:stream';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { Gateway, type Resolve } from '../../origin/egress/gateway.ts';
import {
  CHANNEL,
  decodeCredit,
  decodeJson,
  encodeCredit,
  encodeEnd,
  encodeFrame,
  encodeJson,
  FRAME,
  type Frame,
  FrameDecoder,
  MAX_CONNECTIONS,
  OUTGOING,
  PROTOCOL_VERSION,
  WINDOW,
} from '../../origin/guest/mux.ts';
import { GuestChannel } from '../../origin/vm/channel.ts';
import type { Egress, GuestConnection } from '../../origin/vm/driver.ts';
import { MachineError } from '../../origin/vm/error.ts';
import { parseEgressRule } from '../../shared/config/egress.ts';

const ID = OUTGOING;
const hello = encodeFrame(FRAME.hello, 0, Buffer.from([PROTOCOL_VERSION]));
const connect = (id: number, host: unknown, port: unknown) => encodeJson(FRAME.connect, id, { host, port });

/** String() and Number() of it throw. */
const TRAP = { toString: 1, valueOf: 1 };

/** A guest under the test's control. */
function guestWith(egress?: Egress) {
  const sent: Frame[] = [];
  const decoder = new FrameDecoder();
  const pipe = new Duplex({
    read: () => undefined,
    write: (chunk: Buffer, _encoding, done) => {
      for (const frame of decoder.push(chunk)) sent.push({ ...frame, payload: Buffer.from(frame.payload) });
      done();
    },
  });
  const closed = Promise.withResolvers<MachineError>();
  const channel = new GuestChannel(closed.resolve, undefined, egress);
  channel.attach(pipe);
  const say = (...wire: Buffer[]) => wire.map((frame) => pipe.push(frame));
  say(hello);
  const types = (id: number) => sent.filter(({ stream }) => stream === id).map(({ type }) => type);
  const received = (id: number) =>
    Buffer.concat(sent.filter((f) => f.stream === id && f.type === FRAME.stdin).map((f) => f.payload));
  const until = (id: number, type: number) => expect.poll(() => types(id)).toContain(type);
  return { channel, sent, closed: closed.promise, say, types, received, until };
}

/** Takes every connection and does nothing with it. */
function taking(): Egress & { taken: GuestConnection[] } {
  const taken: GuestConnection[] = [];
  return {
    taken,
    allow: [],
    connect: (connection) => {
      taken.push(connection);
      connection.accept();
    },
    overflow: (connection) => connection.refuse('too many'),
    note: () => undefined,
  };
}

describe('a guest', () => {
  test.each<[string, Buffer[]]>([
    ['opens one number twice', [connect(ID, 'a.example', 1), connect(ID, 'a.example', 1)]],
    ['counts backwards', [connect(ID + 1, 'a.example', 1), connect(ID, 'a.example', 1)]],
    ['opens a connection as a process', [connect(7, 'a.example', 1)]],
    ['sends to a connection that it never opened', [encodeFrame(FRAME.stdout, ID, Buffer.from('x'))]],
    ['sends stderr', [connect(ID, 'a.example', 1), encodeFrame(FRAME.stderr, ID, Buffer.from('x'))]],
    ['says what the host says', [connect(ID, 'a.example', 1), encodeFrame(FRAME.opened, ID)]],
    ['ends the other way', [connect(ID, 'a.example', 1), encodeEnd(ID, CHANNEL.stdin)]],
    ['grants what it was not sent', [connect(ID, 'a.example', 1), encodeCredit(ID, CHANNEL.stdin, 1)]],
    [
      'sends after its end',
      [connect(ID, 'a.example', 1), encodeEnd(ID, CHANNEL.stdout), encodeFrame(FRAME.stdout, ID, Buffer.from('x'))],
    ],
    ['sends a target that cannot be a text', [connect(ID, TRAP, TRAP)]],
    ['sends a note that cannot be a text', [encodeJson(FRAME.note, 0, { why: 'unlisted', host: TRAP })]],
    ['sends no target', [encodeFrame(FRAME.connect, ID, Buffer.from('[]'))]],
    [
      'sends beyond its credit',
      [
        connect(ID, 'a.example', 1),
        ...Array.from({ length: 9 }, () => encodeFrame(FRAME.stdout, ID, Buffer.alloc(WINDOW / 8))),
      ],
    ],
  ])('that %s is cut off', async (_what, wire) => {
    const guest = guestWith(taking());
    guest.say(...wire);
    expect((await guest.closed).code).toBe('guest-protocol');
  });

  test('has none without an egress, and no more than a bounded number at once', async () => {
    const none = guestWith();
    none.say(connect(ID, 'a.example', 443));
    await none.until(ID, FRAME.failed);
    const egress = taking();
    const guest = guestWith(egress);
    for (let n = 0; n < MAX_CONNECTIONS; n += 1) guest.say(connect(ID + n, 'a.example', 443));
    guest.say(connect(ID + MAX_CONNECTIONS, 'a.example', 443));
    await guest.until(ID + MAX_CONNECTIONS, FRAME.failed);
    expect(egress.taken).toHaveLength(MAX_CONNECTIONS);
    // What ended makes room, and what was under way to it is stale.
    guest.say(encodeFrame(FRAME.reset, ID), encodeFrame(FRAME.stdout, ID, Buffer.from('x')));
    guest.say(connect(ID + MAX_CONNECTIONS + 1, 'a.example', 443));
    await guest.until(ID + MAX_CONNECTIONS + 1, FRAME.opened);
    expect(egress.taken[0]?.gone.aborted).toBe(true);
  });

  test('that sleeps for long finds its connections reset when it thaws, one that was paused does not', async () => {
    const guest = guestWith(taking());
    guest.say(connect(ID, 'a.example', 443));
    await guest.until(ID, FRAME.opened);
    const reply = (said: object) => {
      const asked = guest.sent.filter(({ type }) => type === FRAME.control).at(-1);
      guest.say(encodeJson(FRAME.control, 0, { id: asked && decodeJson(asked).id, ...said }));
    };
    const freeze = async () => {
      const freezing = guest.channel.freeze(1000, { force: false });
      await new Promise(setImmediate);
      reply({ frozen: true });
      await freezing;
    };
    const thaw = async () => {
      const thawing = guest.channel.thaw(1000, { ms: 5, fresh: false });
      await new Promise(setImmediate);
      reply({});
      await thawing;
    };
    await freeze();
    await thaw();
    expect(guest.types(ID)).toEqual([FRAME.opened]);
    await freeze();
    guest.channel.resetConnections();
    expect(guest.types(ID)).toEqual([FRAME.opened]);
    await thaw();
    expect(guest.types(ID)).toEqual([FRAME.opened, FRAME.reset]);
    expect(guest.sent.at(-2)?.type).toBe(FRAME.control);
  });
});

describe('a gateway', () => {
  let server: Server;
  let port: number;
  const sockets: Socket[] = [];

  beforeAll(async () => {
    // Says "hi", echoes, and ends when its peer has.
    server = createServer({ allowHalfOpen: true }, (socket) => {
      sockets.push(socket);
      socket.on('error', () => undefined);
      socket.write('hi ');
      socket.pipe(socket);
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    port = (server.address() as { port: number }).port;
  });
  afterAll(() => server.close());

  function gateway(entries: string[], resolve: Resolve = () => Promise.reject(new Error('nobody asks'))) {
    const lines: string[] = [];
    const rules = entries.map(parseEgressRule);
    const log = (line: string) => void lines.push(line);
    return { lines, guest: guestWith(new Gateway({ rules, log, resolve, own: () => [], now: () => 0 })) };
  }

  test('carries bytes both ways with credit, ends each way by itself, and logs it', async () => {
    const { guest, lines } = gateway([`127.0.0.1:${port}`]);
    guest.say(connect(ID, '127.0.0.1', port));
    await guest.until(ID, FRAME.opened);
    const data = Buffer.alloc(2 * WINDOW, 'x');
    let at = 0;
    let credit = WINDOW;
    let given = 0;
    let seen = 0;
    // As a guest does: sends within its credit, gives back what it got.
    while (guest.received(ID).length < data.length + 3) {
      for (const { type, stream, payload } of guest.sent.slice(seen)) {
        if (stream === ID && type === FRAME.credit) credit += decodeCredit({ type, stream, payload }).bytes;
      }
      seen = guest.sent.length;
      for (; credit > 0 && at < data.length; ) {
        const size = Math.min(32 * 1024, credit, data.length - at);
        guest.say(encodeFrame(FRAME.stdout, ID, data.subarray(at, at + size)));
        at += size;
        credit -= size;
      }
      if (guest.received(ID).length > given) {
        guest.say(encodeCredit(ID, CHANNEL.stdin, guest.received(ID).length - given));
        given = guest.received(ID).length;
      }
      await new Promise(setImmediate);
    }
    expect(guest.received(ID).equals(Buffer.concat([Buffer.from('hi '), data]))).toBe(true);
    expect(guest.types(ID)).not.toContain(FRAME.end);
    guest.say(encodeEnd(ID, CHANNEL.stdout));
    await guest.until(ID, FRAME.end);
    await expect.poll(() => lines).toHaveLength(2);
    expect(lines[0]).toBe(`egress: connection 1 to 127.0.0.1:${port} opened, at 127.0.0.1`);
    expect(lines[1]).toBe(
      `egress: connection 1 to 127.0.0.1:${port} closed: ${data.length} bytes sent, ${data.length + 3} received in 0.0 s`,
    );
  });

  test('a peer that resets resets the program, a program that resets closes the peer', async () => {
    const { guest, lines } = gateway([`127.0.0.1:${port}`]);
    guest.say(connect(ID, '127.0.0.1', port));
    await guest.until(ID, FRAME.stdin);
    sockets.at(-1)?.resetAndDestroy();
    await guest.until(ID, FRAME.reset);
    guest.say(connect(ID + 1, '127.0.0.1', port));
    await guest.until(ID + 1, FRAME.stdin);
    const peer = sockets.at(-1);
    guest.say(encodeFrame(FRAME.reset, ID + 1));
    await expect.poll(() => peer?.destroyed).toBe(true);
    await expect.poll(() => lines.at(-1)).toMatch(/connection 2 .* reset by the machine: 0 bytes sent, 3 received/);
    expect(lines.join('\n')).toMatch(/connection 1 .* reset: .*: 0 bytes sent, 3 received/);
    expect(guest.types(ID + 1)).not.toContain(FRAME.reset);
  });

  test.each<[string, string[], unknown, unknown, RegExp]>([
    [
      'a port that is not listed',
      ['127.0.0.1:1'],
      '127.0.0.1',
      2,
      /refused: no entry of "egress" lists this address and port/,
    ],
    ['a name that is not listed', ['a.example:1'], 'b.example', 1, /connection to b\.example:1 refused/],
    [
      'no name at all',
      ['*:1'],
      'a\nforged line',
      1,
      /connection to a\?forged\?line:1 refused: this is not a host name/,
    ],
    ['an unreachable address', ['127.0.0.1:1'], '127.0.0.1', 1, /failed: .*ECONNREFUSED/],
    [
      'a name that resolves to what is private',
      ['a.example:1'],
      'a.example',
      1,
      /resolves to 127\.0\.0\.1 \(loopback\), 10\.0\.0\.9 \(private\)/,
    ],
    ['a name without addresses', ['none.example:1'], 'none.example', 1, /failed: it resolves to nothing/],
    ['a name that nobody knows', ['lost.example:1'], 'lost.example', 1, /failed: queryA ENOTFOUND/],
  ])('refuses %s and says why', async (_what, entries, host, to, line) => {
    const answers: Record<string, string[]> = { 'a.example': ['127.0.0.1', '::ffff:10.0.0.9'], 'none.example': [] };
    const { guest, lines } = gateway(entries, async (name) => {
      const found = answers[name];
      if (!found) throw new Error('queryA ENOTFOUND');
      return found;
    });
    guest.say(connect(ID, host, to));
    await guest.until(ID, FRAME.failed);
    expect(lines.join('\n')).toMatch(line);
  });

  test('connects to an address that it checked, whatever the name says the next time', async () => {
    const answers = [['192.0.2.1', '127.0.0.1'], ['192.0.2.1']];
    const asked: string[] = [];
    const { guest, lines } = gateway([`app.example:${port}`, `127.0.0.1:${port}`], async (name) => {
      asked.push(name);
      return answers.shift() ?? [];
    });
    guest.say(connect(ID, 'App.Example.', port));
    await guest.until(ID, FRAME.opened);
    expect(asked).toEqual(['app.example']);
    guest.say(connect(ID + 1, 'app.example', port));
    await guest.until(ID + 1, FRAME.failed);
    expect(lines.join('\n')).toMatch(/opened, at 127\.0\.0\.1\n.*failed: it resolves to 192\.0\.2\.1 \(reserved\)/);
  });

  test('lets a machine send and receive no faster than it may', async () => {
    const lines: string[] = [];
    const rules = [parseEgressRule(`127.0.0.1:${port}`)];
    // The clock stands still: what is beyond the burst waits for ever.
    const egress = new Gateway({ rules, log: (line) => void lines.push(line), bytesPerSecond: 1024, now: () => 0 });
    const guest = guestWith(egress);
    guest.say(connect(ID, '127.0.0.1', port), connect(ID + 1, '127.0.0.1', port));
    await guest.until(ID + 1, FRAME.opened);
    const peers = sockets.slice(-2);
    for (const id of [ID, ID + 1])
      for (let n = 0; n < 4; n += 1) guest.say(encodeFrame(FRAME.stdout, id, Buffer.alloc(32 * 1024)));
    const read = () => peers.reduce((sum, peer) => sum + (peer?.bytesRead ?? 0), 0);
    await expect.poll(read).toBeGreaterThanOrEqual(64 * 1024);
    await new Promise((resolve) => setTimeout(resolve, 50));
    // What may pass at once passes for both together.
    expect(read()).toBe(64 * 1024);
    guest.channel.close(new MachineError('machine-gone', 'done'));
    await expect.poll(() => lines.filter((line) => line.includes('reset by the machine'))).toHaveLength(2);
  });

  test('does not let a guest fill the log', async () => {
    const lines: string[] = [];
    let now = 0;
    const egress = new Gateway({ rules: [], log: (line) => void lines.push(line), now: () => now });
    for (let n = 0; n < 1_000; n += 1) egress.note({ why: 'unlisted', host: 'x'.repeat(1_000) });
    expect(lines).toHaveLength(120);
    expect(lines[0]?.length).toBeLessThan(400);
    now = 60_000;
    egress.note({ why: 'taken', host: '127.0.0.1', port: 80 });
    expect(lines.slice(120)).toEqual([
      'egress: 880 more lines were not written',
      'egress: 127.0.0.1:80 cannot be reached: a program of the machine listens on that port itself',
    ]);
  });
});
