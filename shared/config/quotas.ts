/** Owns `limits` of the configuration: how much callers may ask for. docs/quotas.md explains it. */
import { z } from 'zod';

const SECONDS = { s: 1, m: 60, h: 3600, d: 86_400 } as const;
const SHAPE = /^([1-9][0-9]{0,8})\/([smhd])$/;

/** Sustained and burst: `amount` in each `window` (seconds), of which `burst` may come at once. */
export interface Rate {
  readonly amount: number;
  readonly window: number;
  readonly burst: number;
}

const burst = z.number().int().min(1).max(1_000_000);
const sustained = z.string().regex(SHAPE, 'write a rate such as "600/m" (s, m, h or d)');

/** As a rate is told to the edge: read already. */
const read = z.strictObject({ amount: z.number().positive(), window: z.number().positive(), burst });

const rateWith = (leastBurst: number) =>
  z
    .union([sustained, z.strictObject({ rate: sustained, burst: burst.optional() }), read], {
      error: 'write a rate such as "600/m", or { "rate": "600/m", "burst": 50 }',
    })
    .transform((given): Rate => {
      if (typeof given === 'object' && 'amount' in given) return given;
      const { rate: text, burst: wanted } = typeof given === 'string' ? { rate: given, burst: undefined } : given;
      const [, digits, unit] = SHAPE.exec(text) ?? [];
      const amount = Number(digits);
      return {
        amount,
        window: SECONDS[unit as keyof typeof SECONDS],
        burst: wanted ?? defaultBurst(amount, leastBurst),
      };
    });

/** A tenth of the window's amount, and no less than a client needs that connects: it asks for half a dozen lists at once. */
const defaultBurst = (amount: number, least: number): number =>
  Math.min(amount, Math.max(least, Math.ceil(amount / 10)));

const rate = rateWith(10);
/** Of a burst that all callers share, one of them has half. */
const sharedRate = rateWith(20);

export const callerLimits = z
  .strictObject({
    /** Everything that one principal sends, in all its sessions. */
    perPrincipal: rate.optional(),
    perSession: rate.optional(),
    /** Each server, from all principals together. */
    perServer: sharedRate.optional(),
    /** The same for servers by their names, in the place of `perServer`. */
    servers: z.record(z.string(), sharedRate).optional(),
    /** One address, before anybody is authenticated. */
    perIp: rate.optional(),
    /** Calls of one principal that run at the same time. */
    concurrent: z.number().int().min(1).max(1000).optional(),
    /** Calls of one principal in a day (UTC). */
    daily: z.number().int().min(1).max(1_000_000_000).optional(),
  })
  .refine(({ perSession, perPrincipal }) => perSession === undefined || perPrincipal !== undefined, {
    path: ['perSession'],
    error: 'set "perPrincipal" too: otherwise whoever opens another session has another allowance',
  });

export type CallerLimits = z.infer<typeof callerLimits>;
