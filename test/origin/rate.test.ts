import fc from 'fast-check';
import { expect, test } from 'vitest';
import { full, rateOf, take } from '../../origin/rate.ts';

test('whoever waits as told sends at the rate, and never gets stuck', () => {
  const pieces = fc.array(fc.record({ bytes: fc.integer({ min: 1, max: 500_000 }), idleMs: fc.nat(2_000) }), {
    minLength: 1,
  });
  fc.assert(
    fc.property(fc.integer({ min: 1024, max: 10_000_000 }), pieces, (bytesPerSecond, list) => {
      const rate = rateOf(bytesPerSecond);
      let bucket = full(rate, 0);
      let now = 0;
      let sent = 0;
      for (const { bytes, idleMs } of list) {
        now += idleMs;
        const taken = take(rate, bucket, bytes, now);
        bucket = taken.bucket;
        sent += bytes;
        now += taken.waitMs;
        // What went beyond the burst has been waited for.
        expect(sent).toBeLessThanOrEqual(rate.burst + (now * bytesPerSecond) / 1000 + 1);
        expect(taken.waitMs).toBeLessThanOrEqual((bytes * 1000) / bytesPerSecond + 1);
      }
    }),
  );
});

test('a clock that goes back gives nothing', () => {
  const rate = rateOf(1024 * 1024);
  const { bucket } = take(rate, full(rate, 1000), rate.burst, 1000);
  expect(take(rate, bucket, 1024, 0).waitMs).toBeGreaterThan(0);
});
