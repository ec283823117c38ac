/** The stored answers themselves, on SQLite as Durable Objects have it: who gets which, for how long, how many. */
import { DatabaseSync } from 'node:sqlite';
import { beforeEach, describe, expect, test } from 'vitest';
import {
  answerOf,
  Copies,
  DOUBT_MS,
  type ListedPage,
  MAX_COPY_BYTES,
  MAX_SERVER_BYTES,
  MAX_SERVER_ROWS,
  verdictOf,
} from '../../edge/discovery/copies.ts';
import { INITIALIZE, type Question } from '../../edge/discovery/question.ts';
import type { View } from '../../edge/discovery/view.ts';
import type { DiscoverySetting } from '../../shared/link.ts';

const ALL: DiscoverySetting = { copies: 'all', maxAgeS: 3600 };
const OWN: DiscoverySetting = { copies: 'principal', maxAgeS: 3600 };
const ada: View = { server: 'notes', principal: 'ada', variant: 'v' };
const eve: View = { ...ada, principal: 'eve' };
const tools: Question = { method: 'tools/list', cursor: null };
const page = (cursor: string): Question => ({ ...tools, cursor });
const listed = (value: object) => JSON.stringify({ tools: [], ...value });

let database: DatabaseSync;
let copies: Copies;
beforeEach(() => {
  database = new DatabaseSync(':memory:');
  copies = new Copies({
    exec<T>(query: string, ...bindings: (string | number | null)[]) {
      const rows = database.prepare(query).all(...bindings) as T[];
      return { toArray: () => rows, one: () => rows[0] as T };
    },
  });
});

interface Kept {
  view?: View;
  question?: Question;
  setting?: DiscoverySetting;
  asked?: number;
  now?: number;
}
const keep = (text: string, { view = ada, question = tools, setting = ALL, asked = 0, now = asked }: Kept = {}) =>
  copies.remember(view, 'd', question, { text, refused: false }, setting, asked, now);
const recall = ({ view = ada, question = tools, setting = ALL, now = 1, deployment = 'd' } = {}) =>
  copies.recall(view, deployment, question, setting, now)?.text ?? null;
const rows = () => (database.prepare('SELECT COUNT(*) AS n FROM copy').get() as { n: number }).n;

describe('who is answered', () => {
  test('everybody from the same copy, or each principal from its own', () => {
    keep(listed({ of: 'all' }));
    expect(recall({ view: eve })).toBe(listed({ of: 'all' }));
    keep(listed({ of: 'ada' }), { setting: OWN });
    expect(recall({ setting: OWN })).toBe(listed({ of: 'ada' }));
    expect(recall({ view: eve, setting: OWN })).toBeNull();
  });

  test('only its principal from a result that says that it is private', () => {
    keep(listed({ cacheScope: 'private' }));
    expect(recall()).not.toBeNull();
    expect(recall({ view: eve })).toBeNull();
  });

  test('nobody but its principal any more when the server says so, and everybody again when it takes that back', () => {
    keep(listed({ cacheScope: 'public' }));
    keep(listed({ cacheScope: 'private' }), { asked: 5 });
    expect(recall({ view: eve, now: 6 })).toBeNull();
    keep(listed({ cacheScope: 'public', n: 2 }), { view: eve, asked: 7 });
    expect(recall({ view: eve, now: 8 })).toContain('"n":2');
    keep(listed({ cacheScope: 'public', n: 3 }), { asked: 9 });
    expect(recall({ now: 10 })).toContain('"n":3');
  });

  test.each([
    ['another variant', { view: { ...ada, variant: 'w' } }],
    ['another server', { view: { ...ada, server: 'wiki' } }],
    ['another deployment', { deployment: 'e' }],
    ['another list', { question: { method: 'prompts/list', cursor: null } }],
    ['nobody, where discovery is live', { setting: { copies: 'none', maxAgeS: 3600 } as const }],
  ])('not %s', (_, what) => {
    keep(listed({}));
    expect(recall(what)).toBeNull();
  });
});

describe('for how long', () => {
  test('its age, or less where the result says so', () => {
    keep(listed({}));
    expect(recall({ now: 3_599_999 })).not.toBeNull();
    expect(recall({ now: 3_600_000 })).toBeNull();
    keep(listed({ ttlMs: 5000 }), { asked: 10 });
    expect(recall({ now: 5009 })).not.toBeNull();
    expect(recall({ now: 5010 })).toBeNull();
    keep(listed({ ttlMs: 0 }), { asked: 6000 });
    expect(recall({ now: 3_605_999 }), 'zero says nothing').not.toBeNull();
    expect(recall({ now: 3_606_000 })).toBeNull();
    expect(copies.recall(ada, 'd', tools, ALL, 7000)?.stored).toBe(6000);
  });

  test('a list only while all its pages are there', () => {
    keep(listed({ nextCursor: 'b' }));
    expect(recall()).toBeNull();
    keep(listed({}), { question: page('b') });
    expect(recall()).not.toBeNull();
    keep(listed({ nextCursor: 'c' }), { asked: 5 });
    expect(recall({ question: page('b') })).toBeNull();
  });

  test('pages that name each other in a circle end somewhere', () => {
    keep(listed({ nextCursor: 'b' }));
    keep(listed({ nextCursor: 'b' }), { question: page('b') });
    expect(recall()).toBeNull();
  });

  test('an empty cursor is no first page', () => {
    keep(listed({ at: 'the first' }));
    expect(recall({ question: page('') })).toBeNull();
  });

  test('not past the server’s word that it changed, unless that is settled soon', () => {
    keep(listed({}));
    copies.doubt(ada, 'tools', ALL, 10);
    expect(recall({ now: 10 + DOUBT_MS - 1 })).not.toBeNull();
    expect(recall({ now: 10 + DOUBT_MS })).toBeNull();
  });

  test('what was asked for before a change, or before what is stored, is not stored', () => {
    copies.doubt(ada, 'tools', ALL, 10);
    keep(listed({ n: 1 }), { asked: 10, now: 20 });
    expect(recall({ now: 20 })).toBeNull();
    keep(listed({ n: 2 }), { asked: 11, now: 21 });
    keep(listed({ n: 3 }), { asked: 15, now: 25 });
    expect(recall({ now: 25 })).toBe(listed({ n: 2 }));
  });

  test('nothing once the server introduces itself in another way', () => {
    keep('{"serverInfo":{"version":"1"}}', { question: INITIALIZE });
    keep(listed({}));
    keep('{"serverInfo":{"version":"1"}}', { question: INITIALIZE, asked: 5 });
    expect(recall({ now: 6 })).not.toBeNull();
    keep('{"serverInfo":{"version":"2"}}', { question: INITIALIZE, asked: 7 });
    expect(recall({ now: 8 })).toBeNull();
    expect(recall({ question: INITIALIZE, now: 8 })).toContain('"2"');
  });
});

describe('a doubt is settled', () => {
  const other = { ...ada, variant: 'w' };
  const listing = (value: object): ListedPage => ({ ...tools, text: listed(value), refused: false });
  const settle = (pages: ListedPage[] | null, own = false, at = 10) =>
    copies.reconcile(ada, 'd', 'tools', pages && { pages, own }, ALL, at, 11);
  beforeEach(() => {
    keep(listed({ n: 1 }));
    keep(listed({ n: 1 }), { view: other });
    copies.doubt(ada, 'tools', ALL, 10);
  });

  test('by the same list: every copy is good again', () => {
    settle([listing({ n: 1 })], true);
    for (const view of [ada, other]) expect(recall({ view, now: 10 + DOUBT_MS })).not.toBeNull();
  });

  test('by another list of a process that starts: it is the list', () => {
    settle([listing({ n: 2 })]);
    expect(recall({ now: 10 + DOUBT_MS })).toBe(listed({ n: 2 }));
    expect(recall({ view: other, now: 12 })).toBeNull();
  });

  test.each([
    ['another list of a process that was called', [listing({ n: 2 })], true],
    ['nothing', null, false],
  ])('by %s: there is no copy', (_, pages, own) => {
    settle(pages, own);
    for (const view of [ada, other]) expect(recall({ view, now: 12 })).toBeNull();
  });

  test('also a copy for one principal: the same list keeps it, another replaces it', () => {
    const own = (n: number) => listed({ n, cacheScope: 'private' });
    keep(own(1), { asked: 11 });
    copies.doubt(ada, 'tools', ALL, 12);
    copies.reconcile(
      ada,
      'd',
      'tools',
      { pages: [{ ...tools, text: own(1), refused: false }], own: true },
      ALL,
      12,
      13,
    );
    expect(recall({ now: 12 + DOUBT_MS })).toBe(own(1));
    copies.reconcile(
      ada,
      'd',
      'tools',
      { pages: [{ ...tools, text: own(2), refused: false }], own: false },
      ALL,
      null,
      14,
    );
    expect(recall({ now: 15 })).toBe(own(2));
  });

  test('of the lists of one principal, where each has its own: others keep theirs', () => {
    database.exec('DELETE FROM changed');
    for (const view of [ada, eve]) keep(listed({ n: 1 }), { view, setting: OWN, asked: 11 });
    copies.doubt(ada, 'tools', OWN, 20);
    copies.reconcile(ada, 'd', 'tools', null, OWN, 20, 21);
    expect(recall({ setting: OWN, now: 22 })).toBeNull();
    expect(recall({ view: eve, setting: OWN, now: 20 + DOUBT_MS })).toBe(listed({ n: 1 }));
    keep(listed({ n: 2 }), { setting: OWN, asked: 20, now: 23 });
    expect(recall({ setting: OWN, now: 24 })).toBeNull();
  });

  test('only by the answer to the newest', () => {
    copies.doubt(ada, 'tools', ALL, 20);
    settle(null);
    expect(recall({ now: 21 })).not.toBeNull();
  });

  test('a process that only starts raises none: its list is taken for its own kind of client, if it lives to tell', () => {
    database.exec('DELETE FROM changed');
    const starting = (pages: ListedPage[] | null, own = false) =>
      copies.reconcile(ada, 'd', 'tools', pages && { pages, own }, ALL, null, 11);
    starting(null);
    starting([listing({ n: 2 })], true);
    expect(recall({ now: 12 })).toBe(listed({ n: 1 }));
    starting([listing({ n: 2 })]);
    expect(recall({ now: 12 })).toBe(listed({ n: 2 }));
    expect(recall({ view: other, now: 12 })).toBe(listed({ n: 1 }));
  });

  test('other lists are not concerned', () => {
    keep('{"prompts":[]}', { question: { method: 'prompts/list', cursor: null } });
    settle(null);
    expect(recall({ question: { method: 'prompts/list', cursor: null } })).not.toBeNull();
  });

  test('the verdict, as a table', () => {
    const one = [listing({ n: 1 })];
    expect(verdictOf(null, () => null)).toBe('drop');
    expect(verdictOf({ pages: one, own: true }, () => listed({ n: 1 }))).toBe('keep');
    expect(verdictOf({ pages: one, own: true }, () => null)).toBe('drop');
    expect(verdictOf({ pages: one, own: false }, () => null)).toBe('replace');
  });
});

test('that a server has no such list is known of it until its lists change', () => {
  const text = '{"code":-32601,"message":"no"}';
  copies.remember(ada, 'd', tools, { text, refused: true }, ALL, 0, 0);
  expect(copies.recall(eve, 'd', tools, ALL, 1)).toEqual({ text, refused: true, stored: 0 });
  expect(copies.tool(ada, 'd', 'a')).toBeNull();
  copies.doubt(ada, 'tools', ALL, 2);
  copies.reconcile(ada, 'd', 'tools', { pages: [{ ...tools, text, refused: true }], own: false }, ALL, 2, 3);
  expect(recall({ now: 2 + DOUBT_MS })).toBe(text);
  const error = { code: -32601, message: 'no' };
  expect(answerOf({ jsonrpc: '2.0', id: 1, error }, 'tools/list')).toEqual({ text, refused: true });
  expect(answerOf({ jsonrpc: '2.0', id: 1, error }, 'server/discover')).toBeNull();
  expect(answerOf({ jsonrpc: '2.0', id: 1, error: { ...error, code: -32603 } }, 'tools/list')).toBeNull();
});

describe('how much', () => {
  test('an answer that is too large is not stored, and what it replaces is gone', () => {
    keep(listed({}));
    keep(listed({ text: 'x'.repeat(MAX_COPY_BYTES) }), { asked: 5 });
    expect(recall({ now: 6 })).toBeNull();
    expect(rows()).toBe(0);
  });

  test('a server has so many, and so much: the oldest go', () => {
    for (let n = 0; n < MAX_SERVER_ROWS + 5; n++) keep(listed({}), { view: { ...ada, variant: `v${n}` }, asked: n });
    expect(rows()).toBe(MAX_SERVER_ROWS);
    expect(recall({ view: { ...ada, variant: 'v4' }, now: 600 })).toBeNull();
    expect(recall({ view: { ...ada, variant: 'v5' }, now: 600 })).not.toBeNull();
    const large = listed({ text: 'x'.repeat(MAX_COPY_BYTES - 1000) });
    const other = { ...ada, server: 'wiki' };
    for (let n = 0; n < 9; n++) keep(large, { view: { ...other, variant: `v${n}` }, asked: n });
    expect(rows()).toBe(MAX_SERVER_ROWS + Math.floor(MAX_SERVER_BYTES / large.length));
  });
});

describe('what a tool says of itself', () => {
  test('is found on any page, however old, for its own caller', () => {
    keep(JSON.stringify({ tools: [{ name: 'a' }], nextCursor: 'b' }));
    keep(JSON.stringify({ tools: [{ name: 'z', annotations: { idempotentHint: true } }] }), { question: page('b') });
    expect(copies.tool(ada, 'd', 'z')).toMatchObject({ annotations: { idempotentHint: true } });
    expect(copies.tool(ada, 'd', 'b')).toBeNull();
    expect(copies.tool(ada, 'e', 'z')).toBeNull();
  });
});
