/** Values of secrets in what a server prints: found in every common encoding, and nothing else is touched. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { Redactor } from '../../origin/secrets/redact.ts';
import { parseExactly } from '../../shared/exact-json.ts';
import type { JsonRpcMessage } from '../../shared/jsonrpc.ts';

const VALUE = 'p@ss/w"örd +\\1';
const redactor = new Redactor([{ name: 'DB', value: VALUE }]);

test.each<[string, string]>([
  ['as it is', VALUE],
  ['as a JSON string', JSON.stringify(VALUE).slice(1, -1)],
  ['as JSON in JSON', JSON.stringify(JSON.stringify(VALUE)).slice(3, -3)],
  ['as ASCII JSON', 'p@ss/w\\"\\u00f6rd +\\\\1'],
  ['as PHP writes JSON', 'p@ss\\/w\\"örd +\\\\1'],
  ['percent-encoded', encodeURIComponent(VALUE)],
  ['percent-encoded in lower case', encodeURIComponent(VALUE).replaceAll(/%../g, (octet) => octet.toLowerCase())],
  ['as a form', new URLSearchParams({ a: VALUE }).toString().slice(2)],
  ['base64', Buffer.from(VALUE).toString('base64').replace(/=+$/, '')],
  ['base64url', Buffer.from(VALUE).toString('base64url')],
  ['hexadecimal', Buffer.from(VALUE).toString('hex')],
])('%s', (_how, text) => {
  const seen = redactor.text(`before ${text} after ${text}`);
  // Base64 may leave a character that the last bits alone decide.
  expect(seen).toMatch(/^before \[secret DB\].? after \[secret DB\].?$/);
});

test.each(['', 'a', 'ab', 'user:', 'Basic auth of '])('base64 of a longer text that begins with "%s"', (before) => {
  for (const encoding of ['base64', 'base64url'] as const) {
    const encoded = Buffer.from(`${before}${VALUE}:and more`).toString(encoding);
    const seen = redactor.text(encoded);
    expect(seen).toContain('[secret DB]');
    expect(Buffer.from(seen.replace('[secret DB]', ''), encoding).toString('latin1')).not.toContain('ss/w');
  }
});

test('each longer line of a key is one', () => {
  const key = new Redactor([
    { name: 'KEY', value: '-----BEGIN KEY-----\nMIIEvQIBADANBgkq\nshort\n-----END KEY-----\n' },
  ]);
  expect(key.text('x MIIEvQIBADANBgkq y')).toBe('x [secret KEY] y');
  expect(key.text('short')).toBe('short');
});

test('of two values that begin alike the longer one is meant', () => {
  const both = new Redactor([
    { name: 'A', value: 'abcdefgh' },
    { name: 'B', value: 'abcdefghij' },
  ]);
  expect(both.text('abcdefghij abcdefgh')).toBe('[secret B] [secret A]');
});

test('half a value at the end of a text that was cut goes too', () => {
  const cut = new Redactor([{ name: 'T', value: 'ghp_0123456789' }]);
  expect(cut.cut('token ghp_0123456789 and ghp_0123')).toBe('token [secret T] and [secret T]');
  expect(cut.cut('nothing here')).toBe('nothing here');
  expect(cut.cut('gh')).toBe('gh');
});

describe('in a message', () => {
  const one = new Redactor([
    { name: 'T', value: 'tools/call' },
    { name: 'N', value: '1234567890' },
  ]);

  test('texts, names of members and numbers are replaced, its own members and other numbers are not', () => {
    const text =
      '{"jsonrpc":"2.0","id":"tools/call","method":"tools/call","params":{"a":["tools/call",1234567890,12345678901,9007199254740993,1234567890.0],"x tools/call":{"tools/call":null}}}';
    const message = one.message(parseExactly(text) as JsonRpcMessage);
    expect(JSON.stringify(message)).toBe(
      '{"jsonrpc":"2.0","id":"tools/call","method":"tools/call","params":{"a":["[secret T]","[secret N]",12345678901,9007199254740993,"[secret N]"],"x [secret T]":{"[secret T]":null}}}',
    );
  });

  test('however deep it is, and whatever its members are called', () => {
    const depth = 100_000;
    const text = `{"jsonrpc":"2.0","id":1,"result":${'['.repeat(depth)}"tools/call"${']'.repeat(depth)}}`;
    let at = (one.message(JSON.parse(text) as JsonRpcMessage) as unknown as { result: unknown }).result;
    while (Array.isArray(at)) at = at[0];
    expect(at).toBe('[secret T]');
    const odd =
      '{"jsonrpc":"2.0","id":1,"result":{"__proto__":"tools/call","constructor":{"__proto__":{"a":"tools/call"}}}}';
    expect(JSON.stringify(one.message(JSON.parse(odd) as JsonRpcMessage))).toBe(
      odd.replaceAll('tools/call', '[secret T]'),
    );
  });

  test('no value is left, and what holds none is as it was', () => {
    const values = fc.array(fc.string({ minLength: 8, maxLength: 30 }), { minLength: 1, maxLength: 3 });
    fc.assert(
      fc.property(values, fc.jsonValue(), fc.jsonValue(), (secrets, plain, other) => {
        const all = new Redactor(secrets.map((value, n) => ({ name: `S${n}`, value })));
        const result = { plain, deep: [{ other, said: secrets.map((value) => `<${value}>`) }] };
        const message = { jsonrpc: '2.0', id: 1, result } as unknown as JsonRpcMessage;
        const seen = JSON.parse(JSON.stringify(all.message(structuredClone(message)))) as typeof message;
        const texts: string[] = [];
        JSON.stringify(seen, (key, value: unknown) => {
          if (typeof value === 'string') texts.push(value);
          texts.push(key);
          return value;
        });
        // A placeholder may spell a value that is made of its letters.
        for (const text of texts) {
          for (const value of secrets) expect(text.replaceAll(/\[secret S\d\]/g, '\n').includes(value)).toBe(false);
        }
      }),
    );
    const none = new Redactor([]);
    const message: JsonRpcMessage = { jsonrpc: '2.0', id: 1, result: { a: 'tools/call' } };
    expect(none.message(message)).toBe(message);
    expect(none.isEmpty).toBe(true);
  });
});
