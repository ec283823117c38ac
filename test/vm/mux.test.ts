import fc from 'fast-check';
import { expect, test } from 'vitest';
import {
  CHANNEL,
  decodeCredit,
  decodeEnd,
  decodeJson,
  encodeCredit,
  encodeEnd,
  encodeFrame,
  encodeJson,
  FRAME,
  type Frame,
  FrameDecoder,
  FrameError,
  type FrameType,
  MAX_CHUNK,
  MAX_PAYLOAD,
  ReceiveWindow,
  SendWindow,
  WINDOW,
} from '../../origin/guest/mux.ts';

const frame = fc.record({
  type: fc.constantFrom<FrameType>(...Object.values(FRAME)),
  stream: fc.nat({ max: 0xffff_ffff }),
  payload: fc.uint8Array({ maxLength: 300 }).map((bytes) => Buffer.from(bytes)),
});

function decodeInChunks(wire: Buffer, sizes: readonly number[]): Frame[] {
  const decoder = new FrameDecoder();
  const frames: Frame[] = [];
  for (let at = 0, index = 0; at < wire.length; index += 1) {
    const size = sizes[index % sizes.length] ?? 1;
    // Payloads may share memory with their chunk, so the chunk is what a socket would hand out: its own memory.
    for (const decoded of decoder.push(Buffer.from(wire.subarray(at, at + size)))) frames.push(decoded);
    at += size;
  }
  return frames;
}

test('frames survive any cutting into chunks', () => {
  fc.assert(
    fc.property(
      fc.array(frame, { maxLength: 12 }),
      fc.array(fc.integer({ min: 1, max: 50 }), { minLength: 1 }),
      (frames, sizes) => {
        const wire = Buffer.concat(frames.map(({ type, stream, payload }) => encodeFrame(type, stream, payload)));
        expect(decodeInChunks(wire, sizes)).toEqual(frames);
      },
    ),
  );
});

test('the largest frame passes, one byte more is refused by both ends', () => {
  const largest = encodeFrame(FRAME.stdout, 1, Buffer.alloc(MAX_PAYLOAD, 7));
  expect(decodeInChunks(largest, [1000])[0]?.payload.length).toBe(MAX_PAYLOAD);
  expect(() => encodeFrame(FRAME.stdout, 1, Buffer.alloc(MAX_PAYLOAD + 1))).toThrow(FrameError);
  largest.writeUInt32LE(MAX_PAYLOAD + 1, 5);
  expect(() => [...new FrameDecoder().push(largest.subarray(0, 9))]).toThrow(/exceeds the limit/);
});

test.each([0, 17, 255])('frame type %i is refused as soon as its header is complete', (type) => {
  const header = Buffer.alloc(9);
  header[0] = type;
  expect(() => [...new FrameDecoder().push(header)]).toThrow(/unknown frame type/);
});

test('random bytes never do worse than a FrameError', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
      try {
        for (const decoded of new FrameDecoder().push(Buffer.from(bytes))) decodeJson(decoded);
      } catch (error) {
        expect(error).toBeInstanceOf(FrameError);
      }
    }),
  );
});

const only = (wire: Buffer): Frame => {
  const [decoded] = decodeInChunks(wire, [wire.length]);
  if (decoded === undefined) throw new Error('no frame');
  return decoded;
};

test('end, credit and JSON payloads read back', () => {
  expect(decodeEnd(only(encodeEnd(3, CHANNEL.stderr)))).toBe(CHANNEL.stderr);
  expect(decodeCredit(only(encodeCredit(3, CHANNEL.stdin, 70_000)))).toEqual({ channel: CHANNEL.stdin, bytes: 70_000 });
  expect(decodeJson(only(encodeJson(FRAME.exit, 3, { code: 1 })))).toEqual({ code: 1 });
});

test.each([
  ['an end without channel', () => decodeEnd(only(encodeFrame(FRAME.end, 1)))],
  ['an end of channel 3', () => decodeEnd(only(encodeFrame(FRAME.end, 1, Buffer.from([3]))))],
  ['a short credit', () => decodeCredit(only(encodeFrame(FRAME.credit, 1, Buffer.from([1, 0]))))],
  ['a JSON list', () => decodeJson(only(encodeJson(FRAME.exit, 1, [])))],
  ['broken JSON', () => decodeJson(only(encodeFrame(FRAME.exit, 1, Buffer.from('{'))))],
])('%s is malformed', (_name, decode) => expect(decode).toThrow(FrameError));

test('a sender and a receiver agree on credit whatever the sizes, and the sender never stalls for good', () => {
  fc.assert(
    fc.property(fc.array(fc.integer({ min: 1, max: 3 * MAX_CHUNK }), { minLength: 1, maxLength: 60 }), (writes) => {
      const sender = new SendWindow();
      const receiver = new ReceiveWindow();
      let unread = 0;
      for (const write of writes) {
        for (let left = write; left > 0; ) {
          const sent = sender.take(left);
          expect(sent).toBeLessThanOrEqual(MAX_CHUNK);
          receiver.receive(sent);
          unread += sent;
          left -= sent;
          if (sender.available > 0) continue;
          const credit = receiver.consume(unread);
          expect(credit).toBeGreaterThan(0);
          sender.grant(credit);
          unread = 0;
        }
      }
      expect(sender.available).toBeGreaterThanOrEqual(0);
    }),
  );
});

test('more data than credit, and more credit than data, are refused', () => {
  const receiver = new ReceiveWindow();
  receiver.receive(WINDOW);
  expect(() => receiver.receive(1)).toThrow(/more than its credit/);
  expect(() => new SendWindow().grant(1)).toThrow(/granted more credit/);
});
