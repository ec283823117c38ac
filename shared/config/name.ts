/** Owns names of servers, which are segments of paths. */
import { z } from 'zod';

/** First path segments that are ours; a server cannot have such a name. */
export const RESERVED_NAMES: readonly string[] = [
  'mcp',
  'sse',
  'messages',
  'admin',
  'healthz',
  'metrics',
  'authorize',
  'token',
  'register',
  'callback',
];

/** A server's name is a path segment: letters, digits, dot, dash and underscore, 63 at most, not starting with a sign. */
export const serverName = z
  .string()
  .regex(
    /^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$/,
    'use letters, digits, ".", "-" and "_" (at most 63, a letter or digit first)',
  )
  .refine((name) => !RESERVED_NAMES.includes(name), 'this name is reserved for a path of Moorage itself');
