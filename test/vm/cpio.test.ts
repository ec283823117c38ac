import fc from 'fast-check';
import { expect, test } from 'vitest';
import { type CpioEntry, writeCpio } from '../../origin/images/cpio.ts';

interface Parsed {
  path: string;
  mode: number;
  content: string;
}

/** An independent reader of the newc format, strict about magic, alignment and the trailer. */
function readCpio(archive: Buffer): Parsed[] {
  const entries: Parsed[] = [];
  for (let at = 0; ; ) {
    expect(archive.toString('latin1', at, at + 6)).toBe('070701');
    const field = (index: number) =>
      Number.parseInt(archive.toString('latin1', at + 6 + index * 8, at + 14 + index * 8), 16);
    const nameEnd = at + 110 + field(11);
    const path = archive.toString('utf8', at + 110, nameEnd - 1);
    expect(archive[nameEnd - 1]).toBe(0);
    const start = (nameEnd + 3) & ~3;
    const end = start + field(6);
    if (path === 'TRAILER!!!') return entries;
    entries.push({ path, mode: field(1), content: archive.toString('latin1', start, end) });
    at = (end + 3) & ~3;
  }
}

test('writes folders, files and links with their types and permissions', () => {
  const archive = writeCpio([
    { type: 'folder', path: 'bin' },
    { type: 'file', path: 'bin/tool', mode: 0o755, content: Buffer.from('odd') },
    { type: 'link', path: 'bin/alias', target: 'tool' },
  ]);
  expect(readCpio(archive)).toEqual([
    { path: 'bin', mode: 0o040755, content: '' },
    { path: 'bin/tool', mode: 0o100755, content: 'odd' },
    { path: 'bin/alias', mode: 0o120777, content: 'tool' },
  ]);
});

test('reads back whatever lengths names and contents have', () => {
  const file = fc.record({
    type: fc.constant('file' as const),
    path: fc.stringMatching(/^[a-z]{1,20}$/),
    content: fc.uint8Array({ maxLength: 40 }),
  });
  fc.assert(
    fc.property(fc.array(file, { maxLength: 8 }), (files: CpioEntry[]) => {
      const parsed = readCpio(writeCpio(files));
      expect(parsed.map(({ path, content }) => [path, content])).toEqual(
        files.map((entry) => [entry.path, entry.type === 'file' ? Buffer.from(entry.content).toString('latin1') : '']),
      );
    }),
  );
});

test('is a function of its input alone', () => {
  const entries: CpioEntry[] = [{ type: 'file', path: 'a', content: Buffer.from('x') }];
  expect(writeCpio(entries).equals(writeCpio(entries))).toBe(true);
});

test('refuses absolute and empty paths', () => {
  for (const path of ['', '/etc']) expect(() => writeCpio([{ type: 'folder', path }])).toThrow(RangeError);
});
