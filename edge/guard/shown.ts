/**
 * Owns what a caller sees of a server: lists without what the policy keeps from it, whether they are live or copies, and no
 * word of resources that it may not read. Pages stay as the server cut them, so one may be shorter, or empty.
 */
import type { Access } from '../../shared/config/access.ts';
import { decide, type Use } from '../../shared/policy.ts';
import type { Principal } from '../../shared/principal.ts';
import { isRecord } from '../../shared/rev-2026-07-28.ts';
import type { Rewriting } from './rewrite.ts';

/**
 * Where callers see different things, what one may keep is not for others: a cache in front of the router that shares what is
 * public would show them (2026-07-28, "Caching").
 */
export const privately: Rewriting = {
  concerns: (text) => text.includes('"cacheScope"'),
  rewrite: (message) =>
    'result' in message && message.result.cacheScope === 'public'
      ? { ...message, result: { ...message.result, cacheScope: 'private' } }
      : message,
};

/** Where lists stand in results, and what names an entry (2025-11-25 and 2026-07-28, "List…Result"). */
const LISTS = [
  { key: 'tools', kind: 'tool', id: 'name' },
  { key: 'prompts', kind: 'prompt', id: 'name' },
  { key: 'resources', kind: 'resource', id: 'uri' },
  { key: 'resourceTemplates', kind: 'resource', id: 'uriTemplate' },
] as const;
const UPDATED = 'notifications/resources/updated';
/** Shorter texts are looked at whatever they spell: JSON may write a word in several ways. */
const SMALL = 16 * 1024;

/**
 * Takes out what `principal` may not use. `method`: that of the request at hand; where it is not known (a stream that is
 * taken up again) whatever looks like a list is one.
 */
export function showing(access: Access, principal: Principal, server: string, method: string | undefined): Rewriting {
  const lists = method === undefined || method.endsWith('/list');
  const may = (kind: 'tool' | 'prompt' | 'resource', name: unknown) =>
    typeof name === 'string' && decide(access, principal, { kind, server, name } as Use).allow;
  return {
    concerns: (text) => lists || text.length < SMALL || text.includes(UPDATED),
    rewrite: (message) => {
      if ('method' in message) {
        return message.method === UPDATED && !may('resource', message.params?.uri) ? undefined : message;
      }
      if (!lists || !('result' in message)) return message;
      const { result } = message;
      // The result of a call, on a stream of which only the session is known.
      if (Array.isArray(result.content)) return message;
      const kept = LISTS.flatMap(({ key, kind, id }) => {
        const entries: unknown = result[key];
        if (!Array.isArray(entries)) return [];
        const allowed = entries.filter((entry) => isRecord(entry) && may(kind, entry[id]));
        return allowed.length === entries.length ? [] : [[key, allowed] as const];
      });
      return kept.length === 0 ? message : { ...message, result: { ...result, ...Object.fromEntries(kept) } };
    },
  };
}
