import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { Access } from '../../shared/config/access.ts';
import { ConfigError, parseConfigObject } from '../../shared/config.ts';
import { decide, isUnrestricted, type Use } from '../../shared/policy.ts';
import { ANONYMOUS, type Principal } from '../../shared/principal.ts';

const rules = (access: unknown): Access =>
  parseConfigObject({ mcpServers: { notes: { command: 'x' } }, access }).access as Access;

const ALICE: Principal = {
  ...ANONYMOUS,
  subject: 'https://id.example|alice',
  groups: ['eng', 'ops'],
  claims: { dept: 'sales', roles: ['reader', 'writer'], level: 3, odd: { a: 1 } },
  credential: { kind: 'jwt' },
};
const BOT: Principal = {
  ...ANONYMOUS,
  subject: 'token|bot',
  name: 'nightly',
  credential: { kind: 'token', id: 't1' },
};

const tool = (name: string, args?: unknown): Use => ({
  kind: 'tool',
  server: 'notes',
  name,
  ...(args === undefined ? {} : { arguments: args }),
});
const resource = (name: string): Use => ({ kind: 'resource', server: 'notes', name });
const SERVER: Use = { kind: 'server', server: 'notes' };
const OTHER: Use = { kind: 'other', server: 'notes' };

describe('who is meant', () => {
  test.each([
    ['*', ALICE, true],
    ['group:eng', ALICE, true],
    ['group:Eng', ALICE, false],
    ['group:eng', BOT, false],
    ['sub:https://id.example|alice', ALICE, true],
    // A namesake of another issuer is somebody else.
    ['sub:alice', ALICE, false],
    ['sub:https://id.example|аlice', ALICE, false],
    ['token:nightly', BOT, true],
    ['token:t1', BOT, false],
    // A name that is no token's proves nothing.
    ['token:nightly', { ...BOT, name: 'daily', subject: 'token|nightly' }, false],
    ['token:nightly', { ...ALICE, name: 'nightly' }, false],
    ['claim:dept=sales', ALICE, true],
    ['claim:dept=sale', ALICE, false],
    ['claim:roles=writer', ALICE, true],
    ['claim:level=3', ALICE, true],
    ['claim:odd=[object Object]', ALICE, false],
    // What every object inherits is nobody's claim.
    ['claim:constructor=Object', ALICE, false],
    ['claim:__proto__=null', ALICE, false],
  ] as const)('%s', (who, principal, expected) => {
    expect(decide(rules([{ who }]), principal, tool('read')).allow).toBe(expected);
  });

  test('one of several is enough', () => {
    expect(decide(rules([{ who: ['group:x', 'group:ops'] }]), ALICE, tool('read')).allow).toBe(true);
  });
});

describe('what is allowed', () => {
  const read = { who: '*', servers: ['notes'], tools: ['read_*', '!read_secret'] };
  const public_ = { who: '*', resources: ['file:///public/*'] };
  test.each<[string, unknown, Use, boolean]>([
    ['nothing, when no rule says so', [], tool('read'), false],
    ['a tool that is named', [read], tool('read_page'), true],
    ['not what the same rule takes out', [read], tool('read_secret'), false],
    ['not another name', [read], tool('delete_page'), false],
    ['not another case', [read], tool('Read_page'), false],
    ['not a look-alike (Cyrillic)', [read], tool('rеad_page'), false],
    ['not a composed form of a name', [{ who: '*', tools: ['caf\u00e9'] }], tool('cafe\u0301'), false],
    ['not prompts, where only tools are named', [read], { kind: 'prompt', server: 'notes', name: 'read_page' }, false],
    ['the server, for whoever may use something of it', [read], SERVER, true],
    ['another server', [read], { kind: 'server', server: 'mail' }, false],
    ['no method that is about none of these', [read], OTHER, false],
    ['… but to whom nothing is withheld', [{ who: '*' }], OTHER, true],
    ['the server, though some of it is denied', [{ who: '*' }, { ...read, effect: 'deny' }], SERVER, true],
    ['not the server, where all of it is denied', [{ who: '*' }, { who: '*', effect: 'deny' }], SERVER, false],
    ['what is denied', [{ who: '*' }, { ...read, effect: 'deny' }], tool('read_page'), false],
    ['what a denial leaves out', [{ who: '*' }, { ...read, effect: 'deny' }], tool('read_secret'), true],
    ['a resource', [public_], resource('file:///public/a'), true],
    ['no way up out of it', [public_], resource('file:///public/../secret'), false],
    ['no encoded way up', [public_], resource('file:///public/%2E%2e%2fsecret'), false],
    ['dots in a name are no way up', [public_], resource('file:///public/a..b'), true],
    [
      'no way up around a denial',
      [{ who: '*' }, { who: '*', resources: ['file:///secret/*'], effect: 'deny' }],
      resource('file:///x/../secret/a'),
      false,
    ],
  ])('%s', (_, access, use, expected) => {
    expect(decide(rules(access), ALICE, use).allow).toBe(expected);
  });

  test('without rules, everything', () => {
    expect(decide(undefined, ALICE, tool('anything'))).toEqual({ allow: true, trace: [] });
  });
});

describe('arguments', () => {
  const rule = (args: unknown) => rules([{ who: '*', tools: ['query'], arguments: args }]);
  test.each<[string, unknown, unknown, boolean]>([
    ['equal', { mode: { equals: 'ro' } }, { mode: 'ro' }, true],
    ['not equal', { mode: { equals: 'ro' } }, { mode: 'rw' }, false],
    ['of another type', { n: { equals: 1 } }, { n: '1' }, false],
    ['one of', { mode: { oneOf: ['ro', 'rw'] } }, { mode: 'rw' }, true],
    ['none of', { mode: { oneOf: ['ro', 'rw'] } }, { mode: 'rwx' }, false],
    ['a glob', { path: { glob: '/home/alice/*' } }, { path: '/home/alice/x' }, true],
    ['a way up', { path: { glob: '/home/alice/*' } }, { path: '/home/alice/../bob' }, false],
    ['an array for a text', { path: { glob: '/home/alice/*' } }, { path: ['/home/alice/x'] }, false],
    ['at most', { limit: { max: 100 } }, { limit: 100 }, true],
    ['more', { limit: { max: 100 } }, { limit: 101 }, false],
    ['a text for a number', { limit: { max: 100 } }, { limit: '5' }, false],
    ['missing', { limit: { max: 100 } }, {}, false],
    ['missing, which may be', { limit: { max: 100, optional: true } }, {}, true],
    ['a dotted path', { 'where.user': { equals: 'a' } }, { where: { user: 'a' } }, true],
    ['a pointer', { '/a~1b/0': { equals: 'x' } }, { 'a/b': ['x'] }, true],
    ['inherited', { 'constructor.name': { equals: 'Object' } }, {}, false],
    ['all of several', { a: { equals: 1 }, b: { equals: 2 } }, { a: 1, b: 3 }, false],
  ])('%s', (_, constraints, args, expected) => {
    expect(decide(rule(constraints), ALICE, tool('query', args)).allow).toBe(expected);
  });

  test('a tool is listed where some arguments are allowed, and the trace names the one that failed', () => {
    const access = rule({ limit: { max: 1 } });
    expect(decide(access, ALICE, tool('query')).allow).toBe(true);
    expect(decide(access, ALICE, tool('query', { limit: 2 })).trace).toEqual([
      { rule: 0, effect: 'allow', reason: 'argument limit' },
    ]);
  });
});

test.each([
  ['an unknown kind of caller', [{ who: 'everyone' }], /access\.0\.who/],
  ['only what is taken away', [{ who: '*', tools: ['!x'] }], /access\.0\.tools: begin with/],
  ['an unknown member', [{ who: '*', tool: ['x'] }], /access\.0: .*tool/],
  ['arguments of a denial', [{ who: '*', tools: ['x'], effect: 'deny', arguments: { a: { max: 1 } } }], /arguments/],
  ['arguments of no tool', [{ who: '*', arguments: { a: { max: 1 } } }], /name the "tools"/],
  ['an empty constraint', [{ who: '*', tools: ['x'], arguments: { a: {} } }], /say what it must be/],
])('the configuration refuses %s', (_, access, problem) => {
  expect(() => rules(access)).toThrow(ConfigError);
  expect(() => rules(access)).toThrow(problem);
});

test('a rule about a server that is not there is warned of: a misspelt one would deny nothing', () => {
  const { warnings } = parseConfigObject({
    mcpServers: { notes: { command: 'x' } },
    access: [{ who: '*' }, { who: '*', servers: ['notes', '!note', 'n*'], effect: 'deny' }],
  });
  expect(warnings).toEqual(['access.1.servers: no server is named "note" here']);
});

const word = fc.constantFrom('a', 'b', 'ab', '*', 'a*', '*b', 'x');
const globs = fc.array(word, { minLength: 1, maxLength: 3 });
const anyRule = fc.record(
  {
    who: fc.constantFrom('*', 'group:eng', 'group:none', 'sub:token|bot'),
    servers: globs,
    tools: globs,
    prompts: globs,
    effect: fc.constantFrom('allow' as const, 'deny' as const),
  },
  { requiredKeys: ['who'] },
);
const anyUse = fc.oneof(
  fc.record({ kind: fc.constantFrom('server' as const, 'other' as const), server: word }),
  fc.record({
    kind: fc.constantFrom('tool' as const, 'prompt' as const, 'resource' as const),
    server: word,
    name: word,
  }),
);

describe('whatever the rules', () => {
  test('their order decides nothing, and one that denies wins', () => {
    fc.assert(
      fc.property(fc.array(anyRule, { maxLength: 6 }), anyUse, fc.constantFrom(ALICE, BOT), (given, use, who) => {
        const access = rules(given);
        const { allow, trace } = decide(access, who, use);
        expect(decide([...access].reverse(), who, use).allow).toBe(allow);
        const applying = trace.filter(({ reason }) => reason === 'applies').map(({ effect }) => effect);
        expect(allow).toBe(applying.includes('allow') && !applying.includes('deny'));
      }),
    );
  });

  test('one more that allows takes nothing away, one more that denies gives nothing', () => {
    fc.assert(
      fc.property(fc.array(anyRule, { maxLength: 5 }), anyRule, anyUse, (given, more, use) => {
        const before = decide(rules(given), ALICE, use).allow;
        const after = decide(rules([...given, more]), ALICE, use).allow;
        if (more.effect === 'deny') expect(after && !before).toBe(false);
        else expect(before && !after).toBe(false);
      }),
    );
  });

  test('who may use something of a server may use the server, and who is not restricted may use everything', () => {
    fc.assert(
      fc.property(fc.array(anyRule, { maxLength: 6 }), anyUse, (given, use) => {
        const access = rules(given);
        if (decide(access, ALICE, use).allow) {
          expect(decide(access, ALICE, { kind: 'server', server: use.server }).allow).toBe(true);
        }
        if (isUnrestricted(access, ALICE, use.server)) expect(decide(access, ALICE, use).allow).toBe(true);
      }),
    );
  });

  test('no pattern makes a decision slow', () => {
    const hostile = `${'a*'.repeat(127)}b`;
    const access = rules([{ who: '*', tools: Array.from({ length: 200 }, () => hostile) }]);
    const started = performance.now();
    expect(decide(access, ALICE, tool('a'.repeat(20_000))).allow).toBe(false);
    // Backtracking would take longer than the universe; the bound is generous for a host under load.
    expect(performance.now() - started).toBeLessThan(20_000);
  });
});
