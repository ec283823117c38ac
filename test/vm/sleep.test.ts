/** What sleep is made of, without a guest. */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import type { FileHandle } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, onTestFinished, test } from 'vitest';
import { Gate } from '../../origin/guest/gate.ts';
import { heldForMs } from '../../origin/guest/holds.ts';
import { encodeCredit, encodeFrame, FRAME } from '../../origin/guest/mux.ts';
import type { Port } from '../../origin/guest/port.ts';
import { DATA_ADDRESS, encodeRequest, FRAME_BYTES } from '../../origin/guest/syscalls.ts';
import { syscallProgram } from '../../origin/images/syscall-program.ts';
import { processorOf } from '../../origin/vm/fingerprint.ts';
import { blocksOf, mappingsOf, type Run } from '../../origin/vm/guest-memory.ts';
import { CHUNK, type Chunk, writeChunks } from '../../origin/vm/memory-files.ts';
import { opensReadOnly } from '../../origin/vm/qemu.ts';

function temporaryFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), 'moorage-test-'));
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

test.runIf(process.platform === 'linux' && process.arch === 'x64')('the helper makes system calls, in order', () => {
  const program = join(temporaryFolder(), 'syscalls');
  writeFileSync(program, syscallProgram(), { mode: 0o755 });
  const [getppid, open] = [110, 2];
  const input = Buffer.concat([
    encodeRequest(getppid, []),
    encodeRequest(open, [DATA_ADDRESS, 0], Buffer.from('/no/such/file\0')),
    encodeRequest(getppid, []),
  ]);
  const { status, stdout } = spawnSync(program, [], { input });
  expect([status, stdout.length]).toEqual([0, 3 * FRAME_BYTES]);
  const results = [0, 1, 2].map((n) => Number(stdout.readBigInt64LE(n * FRAME_BYTES)));
  expect(results).toEqual([process.pid, -2, process.pid]);
});

describe('holds', () => {
  const alive = (pid: number) => pid === 7;
  test.each<[string, Record<string, string>, number, string[]]>([
    ['nobody asks', {}, 0, []],
    ['one asks', { a: '160 0\n' }, 60_000, ['a']],
    ['the longest counts', { a: '160 0', b: '110.5 7' }, 60_000, ['a', 'b']],
    ['what has ended is removed', { a: '100 0', b: '90 7' }, 0, []],
    ['whose process is gone does not count', { a: '160 8' }, 0, []],
    ['rubbish does not count', { a: 'for ever' }, 0, []],
    ['nobody may ask for more than a week', { a: '1e12 0' }, 7 * 86_400_000, ['a']],
  ])('%s', (_what, files, expected, left) => {
    const folder = temporaryFolder();
    for (const [name, content] of Object.entries(files)) writeFileSync(join(folder, name), content);
    expect(heldForMs(folder, 100, alive)).toBe(expected);
    expect(Object.keys(files).filter((name) => existsSync(join(folder, name)))).toEqual(left);
  });
  test('no folder is no hold', () => expect(heldForMs('/no/such/folder', 0, alive)).toBe(0));
});

describe('the gate', () => {
  const frames = () => {
    const sent: string[] = [];
    const port: Port = {
      send: (frame) => void sent.push(frame[0] === FRAME.credit ? 'credit' : frame.subarray(9).toString()),
      congested: false,
      onDrain: () => undefined,
    };
    return { gate: new Gate(port), sent };
  };
  const say = (text: string) => encodeFrame(FRAME.stdout, 1, Buffer.from(text));

  test.each([
    [false, ['a', 'frozen', 'b', 'credit', 'c']],
    [true, ['a', 'frozen', 'b', 'c']],
  ])('keeps what is said while it is closed (to a host that was started anew: %s)', (fresh, expected) => {
    const { gate, sent } = frames();
    gate.send(say('a'));
    gate.closeWith(say('frozen'));
    expect(gate.congested).toBe(true);
    gate.send(say('b'));
    gate.send(encodeCredit(1, 0, 5));
    expect(sent).toEqual(['a', 'frozen']);
    gate.open(fresh);
    gate.send(say('c'));
    expect(sent).toEqual(expected);
    expect(gate.congested).toBe(false);
  });
});

test('the private mappings of a file are found by its name, in order', () => {
  const maps = [
    '7f0000000000-7f0000010000 rw-p 00010000 fe:00 42                         /d/memory-1.ram',
    '7e0000000000-7e0000010000 rw-p 00000000 fe:00 42                         /d/memory-1.ram',
    '7d0000000000-7d0000001000 r-xp 00000000 fe:00 43                         /usr/bin/qemu',
    '7c0000000000-7c0000001000 rw-p 00000000 00:00 0 ',
  ].join('\n');
  expect(mappingsOf(maps, '/d/memory-1.ram')).toEqual([
    { address: 0x7e0000000000, offset: 0, length: 0x10000 },
    { address: 0x7f0000000000, offset: 0x10000, length: 0x10000 },
  ]);
});

test('blocks cover every run, touch nothing else, and do not overlap', () => {
  const [block, size] = [8, 100];
  const run = fc.tuple(fc.nat(size - 1), fc.integer({ min: 1, max: 30 })).map(([offset, length]): Run => {
    return [offset, Math.min(length, size - offset)];
  });
  fc.assert(
    fc.property(fc.array(run), (runs) => {
      const wanted = new Set<number>();
      for (const [offset, length] of runs)
        for (let at = offset; at < offset + length; at += 1) wanted.add(Math.floor(at / block));
      const covered: number[] = [];
      for (const [offset, length] of blocksOf(runs, block, size)) {
        expect(offset + length).toBeLessThanOrEqual(size);
        for (let at = offset; at < offset + length; at += block) covered.push(at / block);
      }
      expect(covered).toEqual([...wanted].sort((a, b) => a - b));
    }),
  );
});

test('an image whose pages did not reach the disk is none, though only an early sync was told', async () => {
  const lost = Object.assign(new Error('EIO'), { code: 'EIO' });
  let early = 0;
  const file = {
    write: async (_data: Buffer, _at: number, length: number) => ({ bytesWritten: length }),
    datasync: async () => {
      early += 1;
      if (early === 1) throw lost;
    },
    sync: async () => undefined,
  };
  const chunks = Array.from({ length: 20 }, (_, n): Chunk => {
    return { position: n * CHUNK, length: CHUNK, fill: (target) => void target.fill(n) };
  });
  // The part of a file that is written to.
  await expect(writeChunks(file as unknown as FileHandle, chunks, 0)).rejects.toBe(lost);
  expect(early).toBe(1);
});

test.each([
  ['QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)', false],
  ['QEMU emulator version 8.1.5', false],
  ['QEMU emulator version 8.2.0', true],
  ['QEMU emulator version 10.0.2', true],
  ['something else', false],
])('%s opens memory files for reading only: %s', (version, expected) => {
  expect(opensReadOnly(version)).toBe(expected);
});

test('a processor is known by its model and features, not by its speed of the moment', () => {
  const info = (mhz: string) => `model name\t: CPU X\ncpu MHz\t\t: ${mhz}\nflags\t\t: fpu sse2 avx\n`;
  expect(processorOf(info('2100.1'))).toBe(processorOf(info('800.0')));
  expect(processorOf(info('1'))).toBe('CPU X avx fpu sse2');
});
