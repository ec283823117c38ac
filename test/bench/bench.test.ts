/** The benchmark's arithmetic and its command line; what it measures is a matter of real hosts. */
import { describe, expect, test } from 'vitest';
import { bytes, figure, median, ms, ratio, tableOf, WHOLE } from '../../bench/figures.ts';
import { memoryOf } from '../../bench/host.ts';
import { parseOptions, wakesFor } from '../../bench/options.ts';

const HOST = { cpus: 2, memoryMiB: 16_384 };

test.each([
  [[3], 3],
  [[9, 1, 5], 5],
  [[4, 1, 3, 2], 2.5],
  [[], Number.NaN],
])('the median of %j is %d', (values, expected) => expect(median(values)).toBe(expected));

describe('a figure', () => {
  const samples = [
    { host: { spawn: 20, cont: 1 }, guest: { answer: 100 } },
    { host: { spawn: 40, cont: 3 }, guest: { answer: 300 } },
    { host: { spawn: 30, cont: 2 }, guest: { answer: 200 } },
  ];
  const wake = figure('wake', samples, [
    { of: WHOLE, ms: 30 },
    { of: 'cont', ms: 2 },
  ]);

  test('is split into the host’s part and the guest’s, each compared with its target', () => {
    expect(wake).toMatchObject({ runs: 3, total: 232, least: 121, most: 343, host: 32, guest: 200 });
    expect(wake.parts).toEqual({ host: { spawn: 30, cont: 2 }, guest: { answer: 200 } });
    expect(wake.targets.map(({ measured, met }) => [measured, met])).toEqual([
      [32, false],
      [2, true],
    ]);
  });

  test('is a row of a table that says what was missed', () => {
    expect(tableOf([wake]).split('\n').at(-1)).toBe(
      "| wake | 232 ms (121 ms – 343 ms) | 3 | 32 ms: spawn 30 ms, cont 2.0 ms | 200 ms: answer 200 ms | the host's part 30 ms: missed (32 ms, at best 21 ms); cont 2.0 ms: met (2.0 ms, at best 1.0 ms) |",
    );
  });

  test('is set against another', () => {
    const boot = figure('boot', [{ host: {}, guest: { boot: 2_320 } }]);
    expect(ratio([wake, boot], 'wake', 'boot')).toBe('wake : boot = 1 : 10.0');
  });
});

test('numbers are shown with the digits that they deserve', () => {
  expect([ms(0.64), ms(28.4), ms(3_520), bytes(12), bytes(26_300), bytes(10_000_000)]).toEqual([
    '0.6 ms',
    '28 ms',
    '3.52 s',
    '12 B',
    '26.3 kB',
    '10.0 MB',
  ]);
});

test('a process’s memory is read from the kernel’s sums', () => {
  const rollup =
    'Rss:  9 kB\nPss:                 100 kB\nPss_Dirty:  1 kB\nPrivate_Clean:    4 kB\nPrivate_Dirty:   60 kB\n';
  expect(memoryOf(rollup)).toEqual({ proportional: 102_400, own: 65_536 });
});

describe('the command line', () => {
  test('scales to the host, unless it is told', () => {
    expect(parseOptions(['machines'], HOST)).toEqual({ json: undefined, wakes: 8, sleeping: 1_000 });
    expect(parseOptions(['machines', '--json', 'f', '--wakes', '100'], HOST)).toMatchObject({ json: 'f', wakes: 100 });
    expect([wakesFor({ cpus: 64, memoryMiB: 262_144 }), wakesFor({ cpus: 64, memoryMiB: 4_096 })]).toEqual([100, 8]);
  });

  test.each([[[]], [['edge']], [['machines', '--wakes', '0']], [['machines', '--sleeping', 'many']]])(
    'refuses %j and shows how it is used',
    (argv) => expect(() => parseOptions(argv, HOST)).toThrow(/Usage: npm run bench/),
  );
});
