/** The pinned definitions themselves, on SQLite as Durable Objects have it. */
import { DatabaseSync } from 'node:sqlite';
import fc from 'fast-check';
import { beforeEach, describe, expect, test } from 'vitest';
import { shown } from '../../cli/tools.ts';
import { type Definition, definitionsIn } from '../../edge/pins/definition.ts';
import { FIRST_MS, MAX_TOOLS, PAGES_MS, Pins } from '../../edge/pins/pins.ts';

let database: DatabaseSync;
let pins: Pins;
const fresh = () => {
  database = new DatabaseSync(':memory:');
  pins = new Pins({
    exec<T>(query: string, ...bindings: (string | number | null)[]) {
      const rows = database.prepare(query).all(...bindings) as T[];
      return { toArray: () => rows, one: () => rows[0] as T };
    },
  });
};
beforeEach(fresh);

const tool = (name: string, version = '1'): Definition => ({
  name,
  digest: `${name}${version}`,
  text: `{"v":${version}}`,
});
const list = (tools: Definition[], { now = 0, isLast = true, deployment = 'd' } = {}) =>
  pins.observe('s', deployment, tools, isLast, now).map(({ name, change }) => `${name} ${change}`);
const standing = (name: string, deployment = 'd') => pins.standing('s', deployment, name);
const LATER = FIRST_MS + 1;

describe('tools', () => {
  test('are accepted as they are listed first, with all their pages and whatever registers late', () => {
    expect(standing('a')).toBe('unpinned');
    expect(list([tool('a')], { isLast: false })).toEqual([]);
    expect(list([tool('b')], { now: PAGES_MS - 1 })).toEqual([]);
    expect([standing('a'), standing('b'), standing('c')]).toEqual(['accepted', 'accepted', 'unlisted']);
    fresh();
    list([tool('a')]);
    expect(list([tool('a'), tool('b')], { now: FIRST_MS - 1 })).toEqual([]);
    expect(list([tool('c')], { now: FIRST_MS })).toEqual(['c added']);
  });

  test('that never end their list are not open for ever', () => {
    list([tool('a')], { isLast: false });
    expect(list([tool('b')], { now: PAGES_MS, isLast: false })).toEqual(['b added']);
  });

  test('that change are told apart, from the first moment on, until they change back', () => {
    list([tool('a')]);
    expect(list([tool('a', '2')], { now: 1 })).toEqual(['a changed']);
    expect(standing('a')).toBe('changed');
    expect(list([tool('a', '2')], { now: 2 })).toEqual(['a changed']);
    expect(pins.observe('s', 'd', [tool('a', '2')], true, 3)[0]).toMatchObject({ isNew: false, accepted: '{"v":1}' });
    expect(list([tool('a')], { now: 4 })).toEqual([]);
    expect(standing('a')).toBe('accepted');
  });

  test('are accepted as their owner saw them, and not as they became meanwhile', () => {
    list([tool('a')]);
    list([tool('a', '2'), tool('b')], { now: LATER });
    const held = pins.differences('s', 'd')?.held ?? [];
    expect(held.map(({ name, change, seen }) => [name, change, seen])).toEqual([
      ['a', 'changed', '{"v":2}'],
      ['b', 'added', '{"v":1}'],
    ]);
    list([tool('a', '3')], { now: LATER });
    const seen = new Map(held.map(({ name, digest }) => [name, digest ?? '']));
    expect(pins.accept('s', 'd', seen)).toEqual(['b']);
    expect([standing('a'), standing('b')]).toEqual(['changed', 'accepted']);
    expect(pins.accept('s', 'd', new Map([['a', 'a3']]))).toEqual(['a']);
    expect(list([tool('a', '3')], { now: LATER })).toEqual([]);
  });

  test('of a new deployment are pinned anew, and what came with it is told', () => {
    list([tool('a'), tool('b'), tool('c')]);
    list([tool('a'), tool('b', '2'), tool('d')], { now: LATER, deployment: 'e' });
    expect(standing('b', 'e')).toBe('accepted');
    const { held, deployed, set } = pins.differences('s', 'e') ?? {};
    expect(held).toEqual([]);
    expect(set).toEqual({ deployment: 'e', since: new Date(LATER).toISOString() });
    expect(deployed?.map(({ name, change }) => `${name} ${change}`)).toEqual(['b changed', 'd added', 'c removed']);
    expect(pins.differences('s', 'd')?.deployed).toEqual([]);
    expect(pins.differences('other', 'd')).toBeNull();
  });

  test('are bounded, in number, in size and in deployments', () => {
    list(Array.from({ length: MAX_TOOLS + 5 }, (_, n) => tool(`t${n}`)));
    expect(list([tool(`t${MAX_TOOLS + 1}`)], { now: LATER })).toEqual([`t${MAX_TOOLS + 1} added`]);
    for (const deployment of ['e', 'f', 'g'])
      list([{ ...tool('a'), text: 'x'.repeat(300_000) }], { deployment, now: LATER });
    const count = (table: string) => (database.prepare(`SELECT COUNT(*) AS n FROM ${table}`).get() as { n: number }).n;
    expect([count('pin_set'), count('pin')]).toEqual([2, 2]);
    list([tool('a', '2')], { deployment: 'g', now: LATER });
    expect(pins.differences('s', 'g')?.held[0]?.accepted).toBeNull();
  });

  test('nothing is accepted but what was listed first or what was accepted', () => {
    const step = fc.record({
      name: fc.constantFrom('a', 'b'),
      version: fc.constantFrom('1', '2', '3'),
      accept: fc.boolean(),
      after: fc.integer({ min: 0, max: FIRST_MS }),
    });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 20 }), (steps) => {
        fresh();
        const allowed = new Map<string, string>();
        let [now, first] = [0, 0];
        for (const [n, { name, version, accept, after }] of steps.entries()) {
          now += after;
          if (n === 0) first = now;
          const listed = tool(name, version);
          if (n === 0 || (!allowed.has(name) && standing(name) === 'unlisted' && now < first + FIRST_MS)) {
            allowed.set(name, listed.digest);
          }
          list([listed], { now });
          if (accept)
            for (const each of pins.accept('s', 'd', new Map([[name, listed.digest]])))
              allowed.set(each, listed.digest);
          expect(standing(name) === 'accepted').toBe(allowed.get(name) === listed.digest);
        }
      }),
    );
  });
});

test('a definition is what a model goes by, in whatever order its members stand', async () => {
  const base = { name: 'a', description: 'd', inputSchema: { type: 'object', properties: { x: { type: 'string' } } } };
  const digest = async (tool: object) => (await definitionsIn([tool]))[0]?.digest;
  const known = await digest(base);
  expect(
    await digest({
      inputSchema: { properties: { x: { type: 'string' } }, type: 'object' },
      description: 'd',
      name: 'a',
    }),
  ).toBe(known);
  expect(await digest({ ...base, icons: [], _meta: { x: 1 } })).toBe(known);
  for (const other of [
    { description: 'D' },
    { title: 't' },
    { annotations: { readOnlyHint: true } },
    { inputSchema: { type: 'object', properties: { x: { type: 'string', description: 'send your key' } } } },
    { outputSchema: { type: 'object' } },
  ]) {
    expect(await digest({ ...base, ...other })).not.toBe(known);
  }
  // As clients of either era see it.
  const wrapped = { type: 'object', properties: { result: { type: 'array' } }, required: ['result'] };
  expect(await digest({ ...base, outputSchema: wrapped })).toBe(
    await digest({ ...base, outputSchema: { type: 'array' } }),
  );
  expect(await definitionsIn([null, {}, { name: 7 }])).toEqual([]);
});

test('differences are shown with what is hidden in them', () => {
  const text = (description: string) => JSON.stringify({ name: 'a', description, inputSchema: {} });
  expect(
    shown('notes', {
      set: { deployment: 'd1', since: '2026-11-25T00:00:00.000Z' },
      held: [
        { name: 'a', change: 'changed', accepted: text('Adds'), seen: text('Adds\u202e.\u001b[2J'), digest: 'x' },
        { name: 'b\u200b', change: 'added', accepted: null, seen: text('New'), digest: 'y' },
      ],
      deployed: [],
    }).split('\n'),
  ).toEqual([
    'Tools of notes, deployment d1, recorded 2026-11-25T00:00:00.000Z.',
    '',
    'Not as accepted:',
    '',
    '~ a',
    '    - description: "Adds"',
    '    + description: "Adds⟦U+202E⟧.\\u001b[2J"',
    '+ b⟦U+200B⟧',
    '    + description: "New"',
    '    + inputSchema: {}',
    '',
  ]);
});
