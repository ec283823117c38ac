/** What a hostile machine may send to `moorage cp`, and what an honest one gets through. */
import {
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readlinkSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import fc from 'fast-check';
import { type Header, pack } from 'tar-stream';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { packed } from '../../cli/pack.ts';
import { staysInside, UnpackError, unpack } from '../../cli/unpack.ts';

let dir: string;
let target: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'moorage-unpack-'));
  target = join(dir, 'copy');
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

type Entry = Partial<Header> & { name: string; content?: string };

async function receive(entries: readonly Entry[], base = 'a'): Promise<string[]> {
  const archive = pack();
  for (const { content, ...header } of entries) archive.entry(header, content ?? '');
  archive.finalize();
  const out: string[] = [];
  await unpack(Readable.from(archive), { base, target, leftOut: (name, why) => out.push(`${name}: ${why}`) });
  return out;
}

describe('an honest archive', () => {
  test('becomes the files that it was made of, with their modes and times', async () => {
    const from = join(dir, 'from');
    mkdirSync(join(from, 'sub'), { recursive: true, mode: 0o755 });
    writeFileSync(join(from, 'run.sh'), 'echo hi\n', { mode: 0o750 });
    writeFileSync(join(from, 'sub', 'empty'), '', { mode: 0o444 });
    symlinkSync('../run.sh', join(from, 'sub', 'link'));
    const left: string[] = [];
    const leftOut = (name: string) => void left.push(name);
    await unpack(Readable.from(packed(from, 'a', leftOut)), { base: 'a', target, leftOut });
    expect(left).toEqual([]);
    expect(readFileSync(join(target, 'sub', 'link'), 'utf8')).toBe('echo hi\n');
    for (const path of ['.', 'run.sh', 'sub', 'sub/empty']) {
      const [was, is] = [lstatSync(join(from, path)), lstatSync(join(target, path))];
      expect([is.mode, Math.floor(is.mtimeMs / 1000)]).toEqual([was.mode, Math.floor(was.mtimeMs / 1000)]);
    }
  });

  test('may be one file, and replaces one that is there', async () => {
    writeFileSync(target, 'old');
    await receive([{ name: './a', content: 'new' }]);
    expect(readFileSync(target, 'utf8')).toBe('new');
  });

  test('may hold a file under two names', async () => {
    await receive([
      { name: 'a', type: 'directory' },
      { name: 'a/one', content: 'same' },
      { name: 'a/two', type: 'link', linkname: 'a/one' },
    ]);
    expect(readFileSync(join(target, 'two'), 'utf8')).toBe('same');
  });
});

describe('a hostile archive', () => {
  test.each(['../b', 'a/../../b', '/etc/b', 'b', 'ab/c', './../a/b', 'a/..'])(
    'is refused for the name %s',
    async (name) => {
      await expect(receive([{ name, content: 'x' }])).rejects.toThrow(UnpackError);
      expect(existsSync(join(dir, 'b'))).toBe(false);
    },
  );

  test('writes nothing through a link that it brings', async () => {
    const attempt = receive([
      { name: 'a', type: 'directory' },
      { name: 'a/sub', type: 'directory' },
      { name: 'a/way', type: 'symlink', linkname: 'sub' },
      { name: 'a/way/file', content: 'x' },
    ]);
    await expect(attempt).rejects.toThrow();
    expect(existsSync(join(target, 'sub/file'))).toBe(false);
  });

  test('writes nothing through a link that lies here already', async () => {
    mkdirSync(target);
    mkdirSync(join(dir, 'elsewhere'));
    symlinkSync(join(dir, 'elsewhere'), join(target, 'way'));
    symlinkSync(join(dir, 'elsewhere', 'file'), join(target, 'file'));
    await expect(receive([{ name: 'a/way/file', content: 'x' }])).rejects.toThrow('in the way');
    await receive([{ name: 'a/file', content: 'x' }]);
    expect(existsSync(join(dir, 'elsewhere', 'file'))).toBe(false);
    expect(lstatSync(join(target, 'file')).isFile()).toBe(true);
  });

  test('brings no link out, no device, no second name of a file of this host, no setuid', async () => {
    writeFileSync(join(dir, 'secret'), 'secret');
    const out = await receive([
      { name: 'a', type: 'directory' },
      { name: 'a/root', type: 'symlink', linkname: '/etc' },
      { name: 'a/up', type: 'symlink', linkname: '../secret' },
      { name: 'a/null', type: 'character-device', devmajor: 1, devminor: 3 },
      { name: 'a/pipe', type: 'fifo' },
      { name: 'a/hard', type: 'link', linkname: 'a/nothing' },
      { name: 'a/run', content: 'x', mode: 0o4755 },
      { name: 'a/fine', type: 'symlink', linkname: './run' },
    ]);
    expect(out.map((line) => line.split(':')[0])).toEqual(['a/root', 'a/up', 'a/null', 'a/pipe', 'a/hard']);
    expect(lstatSync(join(target, 'run')).mode & 0o7777).toBe(0o755);
    expect(readlinkSync(join(target, 'fine'))).toBe('./run');
    await expect(receive([{ name: 'a/x', type: 'link', linkname: '../secret' }])).rejects.toThrow(UnpackError);
  });

  test('that is none is said so', async () => {
    const nonsense = Readable.from([Buffer.alloc(2048, 'x')]);
    await expect(unpack(nonsense, { base: 'a', target, leftOut: () => {} })).rejects.toThrow('no archive');
  });
});

test('a link that stays inside never leads out, whatever other such links lie on its way', () => {
  const names = ['a', 'b', 'c'];
  const link = fc.record({
    at: fc.array(fc.constantFrom(...names), { minLength: 1, maxLength: 3 }),
    to: fc.array(fc.constantFrom(...names, '..', '.'), { minLength: 1, maxLength: 5 }).map((parts) => parts.join('/')),
  });
  fc.assert(
    fc.property(fc.array(link, { maxLength: 6 }), (links) => {
      const made = new Map(links.filter(({ at, to }) => staysInside(at, to)).map(({ at, to }) => [at.join('/'), to]));
      // As a kernel walks: a link's folder is a real one, because nothing is written through links.
      const walk = (from: string[], path: string, budget: { left: number }): string[] | undefined => {
        let at = from;
        for (const part of path.split('/')) {
          if (budget.left-- <= 0) return at;
          if (part === '.') continue;
          if (part === '..') {
            if (at.length === 0) return undefined;
            at = at.slice(0, -1);
            continue;
          }
          const next = [...at, part];
          const to = made.get(next.join('/'));
          const reached = to === undefined ? next : walk(at, to, budget);
          if (reached === undefined) return undefined;
          at = reached;
        }
        return at;
      };
      for (const [at, to] of made) expect(walk(at.split('/').slice(0, -1), to, { left: 200 })).toBeDefined();
    }),
  );
});
