import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { bounded } from '../../edge/guard/bounded.ts';
import { cleaning, cleanMessage } from '../../edge/guard/clean-message.ts';
import { rewritten } from '../../edge/guard/rewrite.ts';
import { cleaned, isSuspect } from '../../shared/hidden-characters.ts';
import type { JsonRpcMessage } from '../../shared/jsonrpc.ts';

const TAGS = [...'ignore all'].map((letter) => String.fromCodePoint(0xe0000 + (letter.codePointAt(0) ?? 0))).join('');

describe('what is hidden or drives a terminal', () => {
  test.each([
    ['colours', '\u001b[1;31mred\u001b[0m', 'red', '⟦U+001B⟧[1;31mred⟦U+001B⟧[0m'],
    ['the title of a window', 'a\u001b]0;owned\u0007b', 'ab', 'a⟦U+001B⟧]0;owned⟦U+0007⟧b'],
    ['a link of a terminal', '\u001b]8;;http://x\u001b\\text\u001b]8;;\u001b\\', 'text', expect.any(String)],
    ['the 8-bit form', 'a\u009b2Jb', 'ab', 'a⟦U+009B⟧2Jb'],
    ['a sequence without an end', 'a\u001b]0;and the rest', 'a]0;and the rest', 'a⟦U+001B⟧]0;and the rest'],
    ['one inside another', '\u001b\u001b[31m[31mx', '[31mx', expect.any(String)],
    ['controls', 'a\u0000b\u0008c\u007fd\u0085e', 'abcde', expect.any(String)],
    ['a carriage return before a line break', 'a\r\nb\tc', 'a\r\nb\tc', 'a\r\nb\tc'],
    ['tag characters', `hi${TAGS}`, 'hi', expect.stringMatching(/^hi⟦U\+E0069⟧/)],
    ['tags behind a flag that is none', `\u{1f3f4}${TAGS}`, '\u{1f3f4}', expect.any(String)],
    ['zero width', 'pass\u200bword\u2060\ufeff', 'password', 'pass⟦U+200B⟧word⟦U+2060⟧⟦U+FEFF⟧'],
    ['bits in joiners', 'a\u200d\u200c\u200d\u200cb', 'ab', expect.any(String)],
    ['bits in joiners behind a letter that joins', 'ب\u200d\u200c\u200d', 'ب\u200d', expect.any(String)],
    ['bits in variation selectors', '😀\ufe00\ufe01\u{e0101}\u{e0102}', '😀', expect.any(String)],
    ['another order than written', 'a\u202eb\u202c\u2066c\u2069', 'abc', expect.any(String)],
    ['marks of direction in a text of one', 'a\u200eb\u061c', 'ab', expect.any(String)],
    ['blanks that look like nothing', 'a\u3164b\u115fc', 'abc', expect.any(String)],
  ])('%s', (_, text, stripped, marked) => {
    expect(cleaned(text, 'strip')).toBe(stripped);
    expect(cleaned(text, 'mark')).toEqual(marked);
    for (const json of [JSON.stringify(text), ascii(text), ascii(text).toUpperCase().replaceAll('\\U', '\\u')]) {
      if (stripped !== text) expect(isSuspect(json)).toBe(true);
    }
  });

  test.each([
    ['a family', '👨‍👩‍👧‍👦'],
    ['a skin tone and a profession', '👩🏽‍💻'],
    ['a heart on fire', '❤️‍🔥'],
    ['a rainbow flag', '🏳️‍🌈'],
    ['a keycap', '1️⃣ #️⃣'],
    ['a flag of a region', '🏴\u{e0067}\u{e0062}\u{e0073}\u{e0063}\u{e0074}\u{e007f}'],
    ['Persian, kept from joining', 'می\u200cخواهم'],
    ['Hindi and Malayalam with joiners', 'क्\u200dष ന്\u200d'],
    ['Hebrew with a mark of direction', 'שלום\u200e (world)\u200f'],
    ['Arabic with its mark', 'مرحبا\u061c 123'],
    ['an ideographic variant', '葛\u{e0100}城'],
    ['a mathematical variant', '≨\ufe00'],
    ['old Hangul', '\u1100\u1160\u11a8'],
    ['Mongolian', 'ᠠ\u180b'],
    ['accents, decomposed', 'cafe\u0301'],
    ['separators of lines', 'a\u2028b'],
  ])('what is needed stays: %s', (_, text) => {
    expect(cleaned(text, 'strip')).toBe(text);
    expect(cleaned(text, 'mark')).toBe(text);
  });

  test('cleaning twice is cleaning once, and takes nothing that is seen', () => {
    const piece = fc.constantFrom(
      'a',
      ' ',
      '\n',
      '\u001b',
      '[',
      '31m',
      ']',
      '\u0007',
      '\u200d',
      '\u200b',
      '\ufe0f',
      '\u180b',
      '😀',
      '🏴',
      '\u{e0067}',
      '1',
      '\u20e3',
      'ب',
      'ש',
      '\u202e',
      '葛',
    );
    fc.assert(
      fc.property(fc.array(piece, { maxLength: 30 }), (pieces) => {
        const marked = cleaned(pieces.join(''), 'mark');
        expect(cleaned(marked, 'mark')).toBe(marked);
        const visible = (text: string) => text.replace(/[^a\s😀שב葛]/gu, '');
        expect(visible(cleaned(pieces.join(''), 'mark'))).toBe(visible(pieces.join('')));
        const stripped = cleaned(pieces.join(''), 'strip');
        expect(cleaned(stripped, 'strip')).toBe(stripped);
      }),
      // A joiner after a selector that does not stay.
      { examples: [[['\ufe0f', '\u200d', '🏴']], [['\u180b', '\u200d']]] },
    );
  });

  test('whatever would be cleaned is suspected, as it is and escaped', () => {
    for (const [from, to] of [
      [0, 0xd7ff],
      [0xe000, 0xffff],
      [0x1d000, 0x1f6ff],
      [0xe0000, 0xe0fff],
    ] as const) {
      for (let code = from; code <= to; code++) {
        const text = String.fromCodePoint(code);
        if (cleaned(text, 'strip') === text) continue;
        if (!isSuspect(JSON.stringify(text)) || !isSuspect(ascii(text))) throw new Error(`U+${code.toString(16)}`);
      }
    }
  });

  test('no text is slow', () => {
    const started = performance.now();
    for (const text of [
      '\u001b]'.repeat(200_000),
      `${'\u001b['.repeat(200_000)}`,
      '\u200d'.repeat(400_000),
      '\u200e'.repeat(400_000),
    ])
      cleaned(text, 'strip');
    expect(performance.now() - started).toBeLessThan(20_000);
  });
});

/** JSON in which everything but ASCII is escaped. */
function ascii(text: string): string {
  return JSON.stringify(text).replace(
    /[\u0080-\uffff]/g,
    (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`,
  );
}

const Z = '\u200b';

test('words are cleaned, and what is compared or handed back is not', () => {
  const message = JSON.parse(
    JSON.stringify({
      jsonrpc: '2.0',
      id: `1${Z}`,
      result: {
        content: [
          { type: 'text', text: `a${Z}` },
          { type: 'image', data: `a${Z}`, mimeType: 'image/png' },
          { type: 'resource', resource: { uri: `u${Z}`, text: `a${Z}`, blob: `a${Z}` } },
        ],
        structuredContent: { [`k${Z}`]: `a${Z}`, name: `a${Z}` },
        messages: [{ role: 'user', content: { type: 'text', text: `a${Z}` } }],
        tools: [
          {
            name: `t${Z}`,
            description: `a${Z}`,
            inputSchema: {
              description: `a${Z}`,
              properties: { name: { title: `a${Z}`, pattern: `p${Z}`, enum: [`e${Z}`] } },
            },
          },
        ],
        nextCursor: `c${Z}`,
        requestState: `s${Z}`,
        _meta: { x: `m${Z}` },
      },
    }),
  ) as JsonRpcMessage;
  const text = JSON.stringify(cleanMessage(message, 'strip'));
  expect(JSON.parse(text)).toEqual({
    jsonrpc: '2.0',
    id: `1${Z}`,
    result: {
      content: [
        { type: 'text', text: 'a' },
        { type: 'image', data: `a${Z}`, mimeType: 'image/png' },
        { type: 'resource', resource: { uri: `u${Z}`, text: 'a', blob: `a${Z}` } },
      ],
      structuredContent: { [`k${Z}`]: 'a', name: 'a' },
      messages: [{ role: 'user', content: { type: 'text', text: 'a' } }],
      tools: [
        {
          name: `t${Z}`,
          description: 'a',
          inputSchema: { description: 'a', properties: { name: { title: 'a', pattern: `p${Z}`, enum: [`e${Z}`] } } },
        },
      ],
      nextCursor: `c${Z}`,
      requestState: `s${Z}`,
      _meta: { x: `m${Z}` },
    },
  });
});

test('errors and log lines are words too, and no prototype is touched', () => {
  const error = JSON.parse(
    `{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":"a${Z}","data":{"__proto__":{"x":"a${Z}"}}}}`,
  );
  expect(JSON.stringify(cleanMessage(error, 'strip'))).toBe(
    '{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":"a","data":{"__proto__":{"x":"a"}}}}',
  );
  const log = { jsonrpc: '2.0', method: 'notifications/message', params: { level: 'info', data: `a${Z}` } } as const;
  expect(cleanMessage(log, 'strip')).toMatchObject({ params: { data: 'a' } });
});

describe('on their way out', () => {
  const json = (text: string) => new Response(text, { headers: { 'content-type': 'application/json' } });
  const stream = (...chunks: string[]) =>
    new Response(
      new ReadableStream<Uint8Array>({
        start(controller) {
          for (const chunk of chunks) controller.enqueue(new TextEncoder().encode(chunk));
          controller.close();
        },
      }),
      { headers: { 'content-type': 'text/event-stream' } },
    );
  const out = async (response: Response) => await (await rewritten(response, [cleaning('strip')])).text();

  test('numbers that no double holds, and bytes of what needs no cleaning', async () => {
    expect(await out(json(`{"jsonrpc":"2.0","id":1,"result":{"n":9007199254740993,"t":"a\\u200b"}}`))).toBe(
      '{"jsonrpc":"2.0","id":1,"result":{"n":9007199254740993,"t":"a"}}',
    );
    const untouched = '{ "jsonrpc" : "2.0", "id":1, "result":{"t":"👩\\u200d💻 \\u0041"} }';
    expect(await out(json(untouched))).toBe(untouched);
  });

  test('events of a stream, wherever they are cut: ids, comments and places stay', async () => {
    const text = [
      ': open\n\n',
      'id: o.aaaaaaaaaa.0\nretry: 3000\ndata: \n\n',
      'id: o.aaaaaaaaaa.1\nevent: message\ndata: {"jsonrpc":"2.0","method":"notifications/message","params":{"data":"a\u001b[31m"}}\n\n'.replace(
        '\u001b',
        '\\u001b',
      ),
      'id: o.aaaaaaaaaa.2\nevent: message\ndata: {"jsonrpc":"2.0","id":1,"result":{}}\n\n',
    ];
    const expected = text.join('').replace('a\\u001b[31m', 'a');
    const whole = text.join('');
    for (const size of [1, 7, whole.length]) {
      const chunks = Array.from({ length: Math.ceil(whole.length / size) }, (_, n) =>
        whole.slice(n * size, (n + 1) * size),
      );
      expect(await out(stream(...chunks))).toBe(expected);
    }
  });

  test('a result beyond its bound is an error that says what to do; anything else passes', async () => {
    const small = [bounded(100)];
    const large = `{"jsonrpc":"2.0","id":7,"result":{"text":"${'ä'.repeat(60)}"}}`;
    expect(JSON.parse(await (await rewritten(json(large), small)).text())).toMatchObject({
      id: 7,
      error: { data: { code: 'result_too_large', bytes: 165, maxBytes: 100 } },
    });
    const question = `{"jsonrpc":"2.0","id":7,"method":"x","params":{"text":"${'ä'.repeat(60)}"}}`;
    expect(await (await rewritten(json(question), small)).text()).toBe(question);
  });
});
