/** What a machine may connect to, as tables: how entries are read, which targets they cover, which addresses of a name. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { decideTarget, usableAddresses } from '../../origin/egress/decide.ts';
import { egressRuleText, parseEgressRule, unionOf } from '../../shared/config/egress.ts';

const rules = (...entries: string[]) => entries.map(parseEgressRule);

describe('an entry', () => {
  test.each([
    ['api.github.com:443', 'api.github.com:443'],
    ['API.GitHub.com.:443', 'api.github.com:443'],
    ['bücher.example:443', 'xn--bcher-kva.example:443'],
    ['*.npmjs.org:443', '*.npmjs.org:443'],
    ['*:443', '*:443'],
    ['_dmarc.example.com:1', '_dmarc.example.com:1'],
    ['10.0.0.5:5432', '10.0.0.5:5432'],
    ['10.0.0.0/8:5432', '10.0.0.0/8:5432'],
    ['[2001:DB8:0::5]:443', '[2001:db8::5]:443'],
    ['[2001:db8::/32]:443', '[2001:db8::/32]:443'],
    ['[::ffff:10.0.0.5]:80', '10.0.0.5:80'],
    ['[::FFFF:7f00:1]:80', '127.0.0.1:80'],
  ])('%s is %s', (written, canonical) => {
    expect(egressRuleText(parseEgressRule(written))).toBe(canonical);
  });

  test.each([
    ['api.github.com', /names no port/],
    ['api.github.com:0', /names no port/],
    ['api.github.com:65536', /names no port/],
    ['api.github.com:https', /names no port/],
    ['https://api.github.com:443', /HOST:PORT alone/],
    ['user@example.com:443', /not a host name/],
    ['example.com/path:443', /not a network/],
    ['example .com:443', /not a host name/],
    [':443', /not a host name/],
    ['.example.com:443', /not a host name/],
    ['example..com:443', /not a host name/],
    ['example.com..:443', /not a host name/],
    ['2001:db8::5:443', /in brackets/],
    ['[example.com]:443', /not an IPv6 address/],
    ['[fe80::1%eth0]:443', /not an IPv6 address/],
    ['*:443:443', /in brackets/],
    ['api.*.com:443', /whole labels/],
    ['*example.com:443', /whole labels/],
    ['*.*.example.com:443', /whole labels/],
    ['*.:443', /not a host name/],
    ['localhost:3000', /the machine itself/],
    ['db.localhost:3000', /the machine itself/],
    // Spellings of 127.0.0.1 that only some parsers read.
    ['2130706433:80', /write the address as 127\.0\.0\.1/],
    ['0x7f.1:80', /write the address as 127\.0\.0\.1/],
    ['0177.0.0.1:80', /write the address as 127\.0\.0\.1/],
    ['127.1:80', /write the address as 127\.0\.0\.1/],
    ['127。0。0。1:80', /write the address as 127\.0\.0\.1/],
    ['256.0.0.1:80', /not a host name/],
    ['0.0.0.0/0:443', /wider than \/8/],
    ['[::/0]:443', /wider than \/16/],
    ['10.0.0.5/8:443', /begins amid a network: write "10\.0\.0\.0\/8"/],
    ['[::ffff:10.0.0.0/104]:443', /write the IPv4 network/],
    ['10.0.0.0/33:443', /not a network/],
  ])('%s is refused with what to write', (written, message) => {
    expect(() => parseEgressRule(written)).toThrow(message);
  });
});

describe('a target', () => {
  const listed = rules('api.github.com:443', '*.npmjs.org:443', '127.0.0.1:8080', '10.1.0.0/16:5432', '[fd00::5]:1');
  test.each<[unknown, unknown, 'name' | 'address' | 'refused']>([
    ['api.github.com', 443, 'name'],
    ['API.GITHUB.COM.', 443, 'name'],
    ['api.github.com', 80, 'refused'],
    ['github.com', 443, 'refused'],
    ['xapi.github.com', 443, 'refused'],
    ['api.github.com.evil.org', 443, 'refused'],
    ['api.github.com..', 443, 'refused'],
    ['api.github.com\0.npmjs.org', 443, 'refused'],
    ['registry.npmjs.org', 443, 'name'],
    ['a.b.npmjs.org', 443, 'name'],
    ['npmjs.org', 443, 'refused'],
    ['evilnpmjs.org', 443, 'refused'],
    ['.npmjs.org', 443, 'refused'],
    ['registry.npmjs.org.evil.org', 443, 'refused'],
    ['*.npmjs.org', 443, 'refused'],
    ['evil.org/.npmjs.org', 443, 'refused'],
    ['evil.org@x.npmjs.org', 443, 'refused'],
    ['127.0.0.1', 8080, 'address'],
    ['::ffff:127.0.0.1', 8080, 'address'],
    ['::ffff:7f00:1', 8080, 'address'],
    ['127.0.0.1', 8081, 'refused'],
    ['127.0.0.2', 8080, 'refused'],
    ['127.1', 8080, 'refused'],
    ['0x7f.0.0.1', 8080, 'refused'],
    ['2130706433', 8080, 'refused'],
    ['0177.0.0.1', 8080, 'refused'],
    ['10.1.2.3', 5432, 'address'],
    ['::ffff:10.1.2.3', 5432, 'address'],
    ['10.2.0.1', 5432, 'refused'],
    ['fd00:0:0::5', 1, 'address'],
    ['fd00::5%lo', 1, 'refused'],
    ['140.82.121.6', 443, 'refused'],
    [undefined, 443, 'refused'],
    [['api.github.com'], 443, 'refused'],
    ['api.github.com', '443', 'refused'],
    ['api.github.com', 443.5, 'refused'],
    ['api.github.com', Number.NaN, 'refused'],
    ['', 443, 'refused'],
    ['a'.repeat(64), 443, 'refused'],
    [`${'a.'.repeat(200)}npmjs.org`, 443, 'refused'],
  ])('%j, port %j: %s', (host, port, type) => {
    expect(decideTarget(listed, host, port).type).toBe(type);
  });

  test('is a name under "*" and no address', () => {
    expect(decideTarget(rules('*:443'), 'any.example', 443).type).toBe('name');
    expect(decideTarget(rules('*:443'), 'any.example', 80).type).toBe('refused');
    for (const address of ['8.8.8.8', '127.0.0.1', '169.254.169.254', '::1'])
      expect(decideTarget(rules('*:443'), address, 443).type).toBe('refused');
  });

  test('without entries is always refused', () => {
    fc.assert(
      fc.property(fc.anything(), fc.anything(), (host, port) => {
        expect(decideTarget([], host, port).type).toBe('refused');
      }),
    );
  });

  test('that is tried is a listed one, whatever text the guest sends', () => {
    const near = fc.oneof(
      fc.string(),
      fc.domain(),
      fc.ipV4(),
      fc.ipV6(),
      fc.stringMatching(/^[a-z.*]{0,9}npmjs\.org\.?$/),
    );
    fc.assert(
      fc.property(near, fc.constantFrom(443, 8080, 5432, 1), (host, port) => {
        const target = decideTarget(listed, host, port);
        if (target.type === 'name') expect(target.host).toMatch(/^(api\.github\.com|([a-z0-9_-]+\.)+npmjs\.org)$/);
        if (target.type === 'address') expect(target.host).toMatch(/^(127\.0\.0\.1|10\.1\.\d+\.\d+|fd00::5)$/);
      }),
    );
  });
});

describe('of the addresses of a name', () => {
  const named = rules('db.example.com:443', '*:80');
  test.each([
    ['140.82.121.6', true],
    ['2606:50c0:8000::153', true],
    ['::ffff:140.82.121.6', true],
    ['64:ff9b::8c52:7906', true],
    ['127.0.0.1', false],
    ['127.8.8.8', false],
    ['0.0.0.0', false],
    ['0.1.2.3', false],
    ['10.0.0.1', false],
    ['172.16.0.1', false],
    ['172.32.0.1', true],
    ['192.168.1.1', false],
    ['100.64.0.1', false],
    ['169.254.169.254', false],
    ['168.63.129.16', false],
    ['192.0.0.192', false],
    ['192.88.99.1', false],
    ['198.18.0.1', false],
    ['203.0.113.1', false],
    ['224.0.0.1', false],
    ['255.255.255.255', false],
    ['240.0.0.1', false],
    ['::', false],
    ['::1', false],
    ['::7f00:1', false],
    ['::ffff:127.0.0.1', false],
    ['::ffff:7f00:1', false],
    ['::ffff:169.254.169.254', false],
    ['::ffff:0:127.0.0.1', false],
    ['64:ff9b::7f00:1', false],
    ['64:ff9b::a9fe:a9fe', false],
    ['64:ff9b:1::8c52:7906', false],
    ['2002:7f00:1::', false],
    ['2001::1', false],
    ['2001:db8::1', false],
    ['fe80::1', false],
    ['fe80::1%eth0', false],
    ['fec0::1', false],
    ['fd00:ec2::254', false],
    ['ff02::1', false],
    ['4000::1', false],
    ['not an address', false],
    ['140.82.121.6 ', false],
  ])('%s is connected to: %s', (address, used) => {
    const { use, refused } = usableAddresses(named, 443, [address], []);
    expect([use.length, refused.length]).toEqual(used ? [1, 0] : [0, 1]);
  });

  test('those of the host itself are left out, in either family', () => {
    const own = ['140.82.121.6', '2606:50c0:8000::153', 'fe80::1%eth0'];
    const { use, refused } = usableAddresses(
      named,
      443,
      ['::ffff:140.82.121.6', '2606:50c0:8000:0::153', '1.1.1.1'],
      own,
    );
    expect(use).toEqual(['1.1.1.1']);
    expect(refused).toEqual(['140.82.121.6 (this host)', '2606:50c0:8000::153 (this host)']);
  });

  test('private ones are used where an entry lists the address with that port', () => {
    const listed = [...named, ...rules('10.0.0.0/8:443', '127.0.0.1:443')];
    const resolved = ['10.1.2.3', '::ffff:10.1.2.4', '127.0.0.1', '127.0.0.2', '192.168.0.1'];
    expect(usableAddresses(listed, 443, resolved, []).use).toEqual(['10.1.2.3', '10.1.2.4', '127.0.0.1']);
    expect(usableAddresses(listed, 80, resolved, []).use).toEqual([]);
  });

  test('each is used once, and a mixed answer keeps its public ones', () => {
    const { use, refused } = usableAddresses(named, 443, ['1.1.1.1', '::ffff:1.1.1.1', '10.0.0.1'], []);
    expect([use, refused]).toEqual([['1.1.1.1'], ['10.0.0.1 (private)']]);
  });
});

test('servers of one machine may what each of them may', () => {
  const union = unionOf([
    rules('a.example:1', '10.0.0.1:2'),
    [],
    rules('A.example.:1', '[::ffff:10.0.0.1]:2', 'b.example:1'),
  ]);
  expect(union.map(egressRuleText)).toEqual(['a.example:1', '10.0.0.1:2', 'b.example:1']);
});
