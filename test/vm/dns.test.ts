/** The resolver of a machine as bytes: what it answers, and what it does not even read. */
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { encodeAnswer, parseQuestion } from '../../origin/guest/dns.ts';
import { nameAddress, portsOf } from '../../origin/guest/names.ts';

function query(name: string, type = 1, { flags = 0x0100, questions = 1, kind = 1 } = {}): Buffer {
  const header = Buffer.alloc(12);
  header.writeUInt16BE(0x1234, 0);
  header.writeUInt16BE(flags, 2);
  header.writeUInt16BE(questions, 4);
  const labels = name.split('.').map((label) => Buffer.concat([Buffer.from([label.length]), Buffer.from(label)]));
  const tail = Buffer.alloc(5);
  tail.writeUInt16BE(type, 1);
  tail.writeUInt16BE(kind, 3);
  return Buffer.concat([header, ...labels, tail]);
}

test.each([
  ['an address', query('API.GitHub.com'), { name: 'api.github.com', wantsAddress: true }],
  ['an IPv6 address', query('api.github.com', 28), { name: 'api.github.com', wantsAddress: false }],
  ['a mail server', query('github.com', 15), { name: 'github.com', wantsAddress: false }],
  ['another class', query('github.com', 1, { kind: 3 }), { name: 'github.com', wantsAddress: false }],
  ['with more behind it (EDNS)', Buffer.concat([query('a.b'), Buffer.alloc(11)]), { name: 'a.b', wantsAddress: true }],
])('a question for %s is read', (_what, packet, expected) => {
  expect(parseQuestion(packet)).toMatchObject({ id: 0x1234, recursion: true, ...expected });
});

test.each([
  ['a response', query('a.b', 1, { flags: 0x8180 })],
  ['another operation', query('a.b', 1, { flags: 0x2800 })],
  ['two questions', query('a.b', 1, { questions: 2 })],
  ['no question', query('a.b', 1, { questions: 0 })],
  ['a pointer as a name', Buffer.concat([query('a.b').subarray(0, 12), Buffer.from([0xc0, 12, 0, 1, 0, 1])])],
  ['a name that does not end', query('a.b').subarray(0, 15)],
  ['a question that is cut', query('a.b').subarray(0, -1)],
  ['a name of more than 255 bytes', query(Array.from({ length: 130 }, () => 'a').join('.'))],
])('%s is not', (_what, packet) => {
  expect(parseQuestion(packet)).toBeUndefined();
});

test('rubbish is never more than ignored', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 600 }), (bytes) => {
      const question = parseQuestion(Buffer.from(bytes));
      if (question) expect(encodeAnswer(question, 'unknown-name').length).toBe(12 + question.raw.length);
    }),
  );
});

test('answers repeat the question and carry one address, nothing, or that there is no such name', () => {
  const question = parseQuestion(query('a.b'));
  if (!question) throw new Error('not read');
  const found = encodeAnswer(question, { address: '127.64.0.1' });
  expect(found.readUInt16BE(2)).toBe(0x8580);
  expect([found.readUInt16BE(4), found.readUInt16BE(6)]).toEqual([1, 1]);
  expect([...found.subarray(-16)]).toEqual([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 127, 64, 0, 1]);
  expect(encodeAnswer(question, 'nothing').readUInt16BE(2)).toBe(0x8580);
  expect(encodeAnswer(question, 'failure').readUInt16BE(2)).toBe(0x8582);
  expect(encodeAnswer(question, 'unknown-name').readUInt16BE(2)).toBe(0x8583);
});

test('a name has the ports of all entries that name it, and an address like no other', () => {
  const rules = [
    { kind: 'name', host: 'a.b', port: 1 },
    { kind: 'under', host: 'b', port: 2 },
    { kind: 'under', host: 'b', port: 1 },
    { kind: 'network', host: '10.0.0.1', port: 3 },
  ] as const;
  expect([portsOf(rules, 'a.b'), portsOf(rules, 'x.a.b'), portsOf(rules, 'b'), portsOf(rules, 'ab')]).toEqual([
    [1, 2],
    [2, 1],
    [],
    [],
  ]);
  expect(portsOf([{ kind: 'any', host: '*', port: 443 }], 'whatever')).toEqual([443]);
  expect([nameAddress(0), nameAddress(253), nameAddress(254)]).toEqual(['127.64.0.1', '127.64.0.254', '127.64.1.1']);
  expect(nameAddress(16_384 * 254 - 1)).toBe('127.127.255.254');
  expect(nameAddress(16_384 * 254)).toBe('127.64.0.1');
});
