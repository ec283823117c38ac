/**
 * Owns a rate limit as a token bucket. Pure: the time is passed in, in milliseconds.
 *
 * What passes is never refused, only delayed: a taker is told how long to wait before it takes more, so one large piece
 * goes into debt rather than getting stuck. Over any stretch of time at most `burst` more passes than the rate allows.
 */
export interface Bucket {
  /** Bytes that may pass at once; negative after a piece that was larger. */
  readonly tokens: number;
  readonly at: number;
}

export interface Rate {
  /** Bytes a second. */
  readonly perSecond: number;
  /** Bytes that may pass at once after a pause. */
  readonly burst: number;
}

/** A quarter of a second's worth may pass at once, and what a frame or a packet needs. */
export const rateOf = (bytesPerSecond: number): Rate => ({
  perSecond: bytesPerSecond,
  burst: Math.max(64 * 1024, bytesPerSecond / 4),
});

export const full = (rate: Rate, now: number): Bucket => ({ tokens: rate.burst, at: now });

/** Takes `bytes`. `waitMs` is how long to wait before anything more is taken. */
export function take(rate: Rate, bucket: Bucket, bytes: number, now: number): { bucket: Bucket; waitMs: number } {
  const elapsed = Math.max(0, now - bucket.at);
  const tokens = Math.min(rate.burst, bucket.tokens + (elapsed * rate.perSecond) / 1000) - bytes;
  const waitMs = tokens >= 0 ? 0 : Math.ceil((-tokens * 1000) / rate.perSecond);
  return { bucket: { tokens, at: Math.max(now, bucket.at) }, waitMs };
}
