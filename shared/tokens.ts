/** Owns what administration says about bearer tokens, between command line and edge. */
import { z } from 'zod';
import { nameSchema, scopeSchema } from './config/auth.ts';

/** What a token is recognized by: in requests, and by scanners that look for leaked ones. */
export const TOKEN_PREFIX = 'moor_';

/** `POST /admin/api/tokens`. */
export const newToken = z.strictObject({
  name: nameSchema,
  /** Who its holder is: `token|<subject>`. Tokens of one subject share sessions. */
  subject: nameSchema,
  scopes: z.array(scopeSchema).min(1).max(200),
  groups: z.array(z.string().min(1).max(256)).max(200),
  /** Unix time in milliseconds; null: never. */
  expiresAt: z.number().int().positive().nullable(),
});
export type NewToken = z.infer<typeof newToken>;

/** A token as it is listed. The token itself is shown once, when it is made. */
export const listedToken = newToken.extend({
  id: z.string(),
  createdAt: z.number(),
  createdBy: z.string(),
  revokedAt: z.number().nullable(),
  /** To the hour. */
  usedAt: z.number().nullable(),
});
export type ListedToken = z.infer<typeof listedToken>;

export const createdToken = z.object({ id: z.string(), token: z.string() });
export const listedTokens = z.object({ tokens: z.array(listedToken) });
