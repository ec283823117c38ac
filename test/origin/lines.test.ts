import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { LineSplitter } from '../../origin/bridge/lines.ts';

describe('lines', () => {
  test('however the bytes are cut, the same lines come out', () => {
    const text = fc.string({ unit: 'grapheme', maxLength: 40 }).map((s) => s.replaceAll(/[\r\n]/g, ' '));
    fc.assert(
      fc.property(
        fc.array(text, { maxLength: 20 }),
        fc.array(fc.integer({ min: 1, max: 9 }), { minLength: 1 }),
        (lines, cuts) => {
          const bytes = Buffer.from(lines.map((line) => `${line}\n`).join(''));
          const splitter = new LineSplitter(1024);
          const out = [];
          for (let at = 0, n = 0; at < bytes.length; n++) {
            const size = cuts[n % cuts.length] ?? 1;
            out.push(...splitter.push(bytes.subarray(at, at + size)));
            at += size;
          }
          expect(out).toEqual(lines.filter((line) => line.trim() !== '').map((line) => ({ type: 'line', text: line })));
        },
      ),
    );
  });

  test('a line over the bound is skipped and the next one is whole', () => {
    const splitter = new LineSplitter(1000);
    const long = Buffer.alloc(5000, 'x');
    expect(splitter.push(Buffer.concat([Buffer.from('{"id":7,'), long]))).toEqual([]);
    const [overlong, next] = splitter.push(Buffer.concat([long, Buffer.from('end\nshort\r\n')]));
    expect(overlong).toMatchObject({ type: 'overlong', bytes: 8 + 5000 + 5000 + 3 });
    expect(overlong?.type === 'overlong' && overlong.head.startsWith('{"id":7,')).toBe(true);
    expect(overlong?.type === 'overlong' && overlong.tail.endsWith('end')).toBe(true);
    expect(next).toEqual({ type: 'line', text: 'short' });
  });

  test('what no newline follows is a line when nothing more comes', () => {
    const splitter = new LineSplitter(1000);
    expect(splitter.push(Buffer.from('first\nlast wor'))).toEqual([{ type: 'line', text: 'first' }]);
    splitter.push(Buffer.from('ds'));
    expect([splitter.end(), splitter.end()]).toEqual([{ type: 'line', text: 'last words' }, undefined]);
  });

  test('an endless line costs bounded memory', () => {
    const splitter = new LineSplitter(1000);
    const chunk = Buffer.alloc(1 << 20, 'x');
    const before = process.memoryUsage().arrayBuffers;
    for (let n = 0; n < 200; n++) splitter.push(chunk);
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(64 << 20);
  });
});
