import { describe, expect, test } from 'vitest';
import { machineOf } from '../../shared/config/entry.ts';
import { ConfigError, parseConfig, parseConfigObject } from '../../shared/config.ts';

const problems = (text: string) => {
  try {
    parseConfig(text);
    return [];
  } catch (error) {
    if (error instanceof ConfigError) return error.problems;
    throw error;
  }
};
const withServers = (servers: object, rest: object = {}) => JSON.stringify({ mcpServers: servers, ...rest });

describe('moorage.jsonc', () => {
  test('what is pasted from an MCP client works as it is', () => {
    const config = parseConfig(`{
      // a comment
      "mcpServers": { "memory": { "type": "stdio", "command": "npx", "args": ["-y", "pkg"], "env": { "A": "1" }, "disabled": false, }, },
    }`);
    expect(config.servers.get('memory')).toMatchObject({ runtime: 'vm', command: 'npx', process: 'auto' });
    expect(config.warnings).toEqual(['mcpServers.memory: disabled has no effect here']);
    expect(config.edge).toEqual({ host: '127.0.0.1', port: 8787 });
    expect(config.origin.id).toBe('local');
  });

  test('an edge that others can reach asks them who they are', () => {
    const edge = { host: '0.0.0.0', publicUrl: 'https://mcp.example.com/' };
    const config = parseConfig(withServers({ a: { command: 'x' } }, { edge, auth: { tokens: true } }));
    expect(config.edge.publicUrl).toBe('https://mcp.example.com');
    expect(config.auth).toEqual({ loopback: false, tokens: true, jwt: [] });
    expect(config.warnings).toEqual([expect.stringMatching(/^edge\.host: .* crosses the network in clear/)]);
  });

  test('discovery is set per server, its age in units of time', () => {
    const config = parseConfig(
      withServers({
        a: { command: 'x', discovery: 'live', discoveryMaxAge: '90m' },
        b: { url: 'http://127.0.0.1:1/mcp', discoveryMaxAge: '7d' },
      }),
    );
    expect(config.servers.get('a')).toMatchObject({ discovery: 'live', discoveryMaxAge: 5400 });
    expect(config.servers.get('b')).toMatchObject({ discoveryMaxAge: 604_800 });
  });

  test('sizes become MiB', () => {
    const config = parseConfig(withServers({ a: { command: 'x', limits: { memory: '1G', disk: '512M', cpus: 2 } } }));
    expect(config.servers.get('a')).toMatchObject({ limits: { memory: 1024, disk: 512, cpus: 2 } });
  });

  test('times of sleep become milliseconds; what is not said is left to the origin', () => {
    const sleep = { pauseAfter: '90s', stopAfter: 'never' };
    const config = parseConfig(withServers({ a: { command: 'x', sleep }, b: { command: 'x', sleep: 'always-on' } }));
    expect(config.servers.get('a')).toMatchObject({
      sleep: { pauseAfter: 90_000, stopAfter: Number.POSITIVE_INFINITY },
    });
    expect(config.servers.get('b')).toMatchObject({ sleep: 'always-on' });
    const plain = parseConfig(withServers({ a: { command: 'x', runtime: 'process', sleep } }));
    expect(plain.warnings).toEqual(['mcpServers.a: sleep has no effect on a plain process']);
  });

  test('an image names packages of three registries', () => {
    const image = { pip: ['a[x]==1.0', 'b>=1,<2'], apt: ['git', 'libssl3=3.0.1-1', 'g++'], npm: ['@s/a@^1', 'b'] };
    const config = parseConfig(withServers({ a: { command: 'x', image } }));
    expect(config.servers.get('a')).toMatchObject({ image: { ...image, base: 'node' } });
  });

  test.each([
    ['pip', '-r /etc/passwd'],
    ['pip', 'a @ https://example.com/a.whl'],
    ['pip', 'a==1,'],
    ['apt', 'git-'],
    ['apt', '-o=x'],
    ['npm', '--prefix=/'],
    ['npm', './folder'],
  ])('what is no package of %s is refused: %s', (kind, spec) => {
    const [problem] = problems(withServers({ a: { command: 'x', image: { [kind]: [spec] } } }));
    expect(problem).toMatch(`mcpServers.a.image.${kind}.0: write a`);
  });

  test.each([
    [
      'a bad time of sleep',
      withServers({ a: { command: 'x', sleep: { pauseAfter: 'soon' } } }),
      /^mcpServers\.a\.sleep: pauseAfter: write a duration/,
    ],
    [
      'an unknown time of sleep',
      withServers({ a: { command: 'x', sleep: { pause: '5s' } } }),
      /^mcpServers\.a\.sleep: Unrecognized key: "pause"/,
    ],
    ['a bad sleep', withServers({ a: { command: 'x', sleep: 'never' } }), /^mcpServers\.a\.sleep: write "always-on"/],
    ['a syntax error names its line', '{\n "mcpServers": {\n oops }\n}', /^line 3: this is not JSON/],
    ['an unknown member', withServers({ a: { command: 'x', limit: {} } }), /^mcpServers\.a: .*limit/],
    [
      'an age without a unit',
      withServers({ a: { command: 'x', discoveryMaxAge: '24' } }),
      /^mcpServers\.a\.discoveryMaxAge: write a duration/,
    ],
    [
      'a host without a port',
      withServers({ a: { command: 'x', egress: ['b.example:443', 'api.github.com'] } }),
      /^mcpServers\.a\.egress\.1: "api\.github\.com" names no port: write HOST:PORT/,
    ],
    [
      'a secret’s value in the place of its name',
      withServers({ a: { command: 'x', secrets: ['ghp-0123'] } }),
      /^mcpServers\.a\.secrets\.0: write the name of a secret such as "GITHUB_TOKEN"/,
    ],
    [
      'a variable that is set twice',
      withServers({ a: { command: 'x', env: { T: 'x' }, secrets: [{ env: 'T', secret: 'S' }] } }),
      /^mcpServers\.a\.secrets\.0: "env" sets T already/,
    ],
    [
      'two secrets in one variable',
      withServers({ a: { command: 'x', secrets: ['T', { env: 'T', secret: 'S' }] } }),
      /^mcpServers\.a\.secrets: two secrets would be in the same variable/,
    ],
    ['no command', withServers({ a: { args: [] } }), /^mcpServers\.a\.command: /],
    [
      'a bad size',
      withServers({ a: { command: 'x', limits: { memory: '1 gig' } } }),
      /^mcpServers\.a\.limits\.memory: write a size/,
    ],
    [
      'an unknown isolation',
      withServers({ a: { command: 'x', isolation: 'user' } }),
      /^mcpServers\.a\.isolation: write "server" /,
    ],
    [
      'isolation without a microVM',
      withServers({ a: { command: 'x', runtime: 'process', isolation: 'principal' } }),
      /^mcpServers\.a\.isolation: plain processes are not kept apart/,
    ],
    [
      'servers of one machine that differ in isolation',
      withServers({ a: { command: 'x', machine: 'm', isolation: 'principal' }, b: { command: 'x', machine: 'm' } }),
      /^mcpServers\.b\.isolation: "a" shares machine "m"/,
    ],
    [
      'a machine shared by servers that have one for each session',
      withServers({
        a: { command: 'x', machine: 'm', isolation: 'session' },
        b: { command: 'x', machine: 'm', isolation: 'session' },
      }),
      /^mcpServers\.b\.machine: the machine of a session belongs to one server/,
    ],
    ['too little memory', withServers({ a: { command: 'x', limits: { memory: '64M' } } }), /at least "128M"/],
    ['a name that is no path segment', withServers({ 'a/b': { command: 'x' } }), /^mcpServers\.a\/b: use letters/],
    ['a reserved name', withServers({ admin: { command: 'x' } }), /reserved/],
    ['a bad variable', withServers({ a: { command: 'x', env: { 'A B': '1' } } }), /environment variable/],
    ['no servers', withServers({}), /add at least one server/],
    [
      'an address others can reach, without anything that tells who they are',
      withServers({ a: { command: 'x' } }, { edge: { host: '0.0.0.0' } }),
      /^edge\.host: others can reach 0\.0\.0\.0, and nothing tells who they are/,
    ],
    [
      'a public URL without anything that tells who calls',
      withServers({ a: { command: 'x' } }, { edge: { publicUrl: 'https://mcp.example.com' } }),
      /^edge\.publicUrl: others can reach https:\/\/mcp\.example\.com, and nothing/,
    ],
    [
      'trust in callers of this host, where others may pass for them',
      withServers(
        { a: { command: 'x' } },
        { edge: { publicUrl: 'https://mcp.example.com' }, auth: { tokens: true, loopback: true } },
      ),
      /^auth\.loopback: others can reach/,
    ],
    [
      'an address others can reach, of an unknown name',
      withServers({ a: { command: 'x' } }, { edge: { host: '192.168.1.2' }, auth: { tokens: true } }),
      /^edge\.publicUrl: say how clients reach/,
    ],
    [
      'a public URL with a path',
      withServers(
        { a: { command: 'x' } },
        { edge: { publicUrl: 'https://mcp.example.com/x' }, auth: { tokens: true } },
      ),
      /^edge\.publicUrl: write an origin/,
    ],
    [
      'certificates that nobody can show',
      withServers({ a: { command: 'x' } }, { auth: { mtls: { clients: [{ name: 'ci', subject: 'CN=ci' }] } } }),
      /^auth\.mtls: set edge\.tls/,
    ],
    [
      'an unknown kind of credential',
      withServers({ a: { command: 'x' } }, { auth: { basic: true } }),
      /^auth: .*basic/,
    ],
    [
      'an issuer over plain HTTP',
      withServers({ a: { command: 'x' } }, { auth: { jwt: [{ issuer: 'http://id.example.com' }] } }),
      /^auth\.jwt\.0\.issuer: write an https address/,
    ],
    [
      'an algorithm whose key anybody has',
      withServers(
        { a: { command: 'x' } },
        { auth: { jwt: [{ issuer: 'https://id.example.com', algorithms: ['HS256'] }] } },
      ),
      /^auth\.jwt\.0\.algorithms\.0/,
    ],
    [
      'pages of everywhere',
      withServers({ a: { command: 'x' } }, { edge: { allowedOrigins: ['*'] } }),
      /^edge\.allowedOrigins\.0: write an origin/,
    ],
    [
      'streams that end at once',
      withServers({ a: { command: 'x' } }, { edge: { streams: { endIdleAfterMs: 1 } } }),
      /^edge\.streams\.endIdleAfterMs: streams are ended after 50 ms/,
    ],
    [
      'an open listener',
      withServers({ a: { command: 'x' } }, { origin: { listen: '0.0.0.0:1' } }),
      /^origin\.listen: write/,
    ],
    [
      'too much that stands by',
      withServers({ a: { command: 'x' } }, { origin: { standby: 65 } }),
      /^origin\.standby: .*<=64/,
    ],
    ['an edge server without a module', withServers({ a: { runtime: 'edge' } }), /^mcpServers\.a\.tools/],
    [
      'two runtimes in one machine',
      withServers({ a: { command: 'x', machine: 'm' }, b: { command: 'x', machine: 'm', runtime: 'process' } }),
      /^mcpServers\.b\.runtime: "a" shares machine "m"/,
    ],
    [
      'two sizes of one machine',
      withServers({
        a: { command: 'x', machine: 'm', limits: { memory: '256M' } },
        b: { command: 'x', machine: 'm', limits: { memory: '512M' } },
      }),
      /^mcpServers\.b\.limits\.memory/,
    ],
    [
      'names whose machines would be one',
      withServers({ 'a.b': { command: 'x' }, 'a-b': { command: 'x' } }),
      /^mcpServers\.a-b: its machine/,
    ],
  ])('%s is refused and named', (_name, text, expected) => {
    expect(problems(text).join('\n')).toMatch(expected);
  });

  test('all faults are told at once', () => {
    expect(problems(withServers({ a: {}, b: { command: 'x', limits: { memory: 'x', disk: 'y' } } }))).toHaveLength(3);
  });

  test('an object is read like its text', () => {
    const value = { mcpServers: { a: { command: 'x', limits: { memory: '1G' } } } };
    expect(parseConfigObject(value)).toEqual(parseConfig(JSON.stringify(value)));
    expect(() => parseConfigObject({ mcpServers: { a: {} } })).toThrow(ConfigError);
    expect(() => parseConfigObject(undefined)).toThrow(ConfigError);
  });

  test('a prototype is not a server', () => {
    expect(problems('{ "mcpServers": { "__proto__": { "command": "x" } } }')).not.toEqual([]);
  });
});

test('a machine is named after its server unless it has a name', () => {
  const entry = { runtime: 'vm' as const, command: 'x', args: [], env: {}, process: 'auto' as const, limits: {} };
  expect(machineOf('My.Notes', entry)).toBe('my-notes');
  expect(machineOf('notes', { ...entry, machine: 'shared' })).toBe('shared');
});

describe('servers that are reached over HTTP', () => {
  const entry = (value: object) => parseConfig(JSON.stringify({ mcpServers: { far: value } })).servers.get('far');
  const problems = (value: object) => {
    try {
      entry(value);
      return [];
    } catch (error) {
      return error instanceof ConfigError ? error.problems : [String(error)];
    }
  };

  test.each([
    [{ url: 'http://127.0.0.1:3000/mcp' }, 'auto'],
    [{ type: 'http', url: 'https://example.com/mcp' }, 'http'],
    [{ type: 'streamable-http', url: 'http://h/' }, 'http'],
    [{ type: 'sse', url: 'http://h/sse' }, 'sse'],
    [{ runtime: 'http', transport: 'sse', type: 'sse', url: 'http://h/' }, 'sse'],
  ])('%j', (value, transport) => {
    expect(entry(value)).toMatchObject({ runtime: 'http', transport, headers: {}, process: 'auto' });
  });

  test.each([
    [{ url: 'ftp://h/' }, 'mcpServers.far.url'],
    [{ url: 'no address' }, 'mcpServers.far.url'],
    [{ url: 'http://user:secret@h/' }, 'mcpServers.far.url: put credentials into "headers"'],
    [{ url: 'http://h/', headers: { 'a b': '' } }, 'mcpServers.far.headers.a b'],
    [{ url: 'http://h/', headers: { Host: 'x' } }, 'mcpServers.far.headers.Host'],
    [{ url: 'http://h/', headers: { x: 'a\nb' } }, 'mcpServers.far.headers.x'],
    [{ url: 'http://h/', transport: 'ws' }, 'mcpServers.far.transport'],
    [{ url: 'http://h/', transport: 'http', type: 'sse' }, 'mcpServers.far.type'],
    [{ url: 'http://h/', limits: {} }, 'mcpServers.far'],
    [{ command: 'x', url: 'http://h/' }, 'mcpServers.far'],
    [{ command: 'x', type: 'http' }, 'mcpServers.far.type'],
  ])('refused: %j', (value, where) => {
    expect(problems(value)).toHaveLength(1);
    expect(problems(value)[0]).toContain(where);
    expect(problems(value)[0]).not.toContain('secret');
  });

  test('a reference to a secret is whole', () => {
    expect(problems({ url: 'http://h/', headers: { x: `Bearer \${secret:a b}` } })).toEqual([
      `mcpServers.far.headers.x: write a reference to a secret as "\${secret:NAME}"`,
    ]);
    expect(problems({ url: 'http://h/', headers: { x: `\${secret:A}:\${secret:B} $\{other}` } })).toEqual([]);
  });

  test('a machine cannot have its key', () => {
    expect(
      machineOf('Far', { runtime: 'http', url: 'http://h/', headers: {}, transport: 'auto', process: 'auto' }),
    ).toBe('http:far');
  });
});
