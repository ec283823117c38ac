/** The matrix as Markdown, and where it goes. */
import { expect, test } from 'vitest';
import type { Verdict } from './run.ts';
import { between, toMarkdown } from './table.ts';

const verdict = (over: Partial<Verdict>): Verdict => ({
  client: 'a client',
  version: '1.2.3',
  server: 'time',
  state: 'ok',
  era: '2025-11-25',
  told: 'lists 2, calls it',
  milliseconds: 1,
  ...over,
});

test('a client is a row, a server a column, and an error cannot break the table', () => {
  const failed = { state: 'failed', era: undefined, told: 'a | b\n<c>' } as const;
  expect(
    toMarkdown([
      verdict({}),
      verdict({ server: 'everything', era: '2026-07-28' }),
      verdict({ client: 'another', ...failed }),
      verdict({ client: 'another', server: 'everything', state: 'skipped', told: 'needs Python 3.10', era: undefined }),
    ]),
  ).toBe(
    [
      '| Client | Version | Speaks | time | everything |',
      '| --- | --- | --- | --- | --- |',
      '| a client | 1.2.3 | 2025-11-25; 2026-07-28 | ✓ lists 2, calls it | ✓ lists 2, calls it |',
      '| another | 1.2.3 | – | ✗ a \\| b &lt;c> | not run needs Python 3.10 |',
    ].join('\n'),
  );
});

test('a brief table has marks only', () => {
  expect(toMarkdown([verdict({}), verdict({ server: 'everything', state: 'failed' })], { brief: true })).toContain(
    '| a client | 1.2.3 | 2025-11-25 | ✓ | ✗ |',
  );
});

test('what is outside the markers stays, and a document without them is left alone', () => {
  const document = 'before\n<!-- clients:begin -->\nold\n<!-- clients:end -->\nafter\n';
  expect(between(document, 'new')).toBe('before\n<!-- clients:begin -->\nnew\n<!-- clients:end -->\nafter\n');
  expect(between('no markers', 'new')).toBeUndefined();
});
