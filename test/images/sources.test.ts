import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { gzipSync, zstdCompressSync } from 'node:zlib';
import { expect, onTestFinished, test } from 'vitest';
import { unpackArchive } from '../../origin/images/oci/archive.ts';
import { imageIn, lookupIn } from '../../origin/images/oci/folder.ts';
import { ensureOci } from '../../origin/images/oci/image.ts';
import { readLayers } from '../../origin/images/oci/layers.ts';
import { parseConfiguration } from '../../origin/images/oci/manifest.ts';
import { imageAt } from '../../origin/images/oci/registry.ts';
import type { SourceImage } from '../../origin/images/oci/source.ts';
import type { LayerTree } from '../../origin/images/oci/tree.ts';
import { parseOciReference } from '../../shared/config/oci-reference.ts';
import {
  layoutOf,
  type Member,
  makeImage,
  membersOf,
  savedOf,
  serveRegistry,
  sha256,
  type TestImage,
  tarOf,
  writeFiles,
  writeTar,
} from '../support/oci.ts';

const MiB = 1024 * 1024;

function temporary(): string {
  const folder = mkdtempSync(join(tmpdir(), 'moorage-oci-'));
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

async function treeOf(source: SourceImage, bytes = 10 * MiB): Promise<{ tree: LayerTree; contents: string }> {
  const contents = temporary();
  const { rootfs } = parseConfiguration(source.configuration);
  const budget = { left: bytes };
  const common = { contents, budget, progress: () => undefined };
  return { tree: await readLayers({ layers: source.layers, diffIds: rootfs.diff_ids, ...common }), contents };
}

const long = `long/${'n'.repeat(150)}/${'m'.repeat(120)}`;
const image = (): Promise<TestImage> =>
  makeImage({
    layers: [
      {
        packed: 'gzip',
        members: [
          { name: 'etc/', mode: 0o755 },
          { name: 'etc/old', content: 'old' },
          { name: 'srv/data', content: 'data', mode: 0o4750, uid: 1000, gid: 1001 },
          { name: 'srv/same', type: 'link', linkname: 'srv/data', content: '' },
          { name: 'dev/null', type: 'character-device', content: '' },
          { name: long, content: 'deep', pax: { uid: '3000000000' } },
        ],
      },
      { packed: 'zstd', members: [{ name: 'etc/.wh.old', content: '' }] },
      { packed: 'zstdChunked', members: [{ name: 'etc/new', content: 'new' }] },
      { packed: 'plain', members: [{ name: 'bin', type: 'symlink', linkname: 'usr/bin', content: '' }] },
    ],
  });

async function expectWhole(source: SourceImage): Promise<void> {
  const { tree, contents } = await treeOf(source);
  const text = (path: string) => {
    const inode = tree.find(path)?.inode;
    return inode?.type === 'file' ? readFileSync(join(contents, inode.content ?? ''), 'utf8') : undefined;
  };
  expect(tree.find('etc/old')).toBeUndefined();
  expect(tree.find('dev/null')).toBeUndefined();
  expect(tree.find('srv/data')?.inode).toMatchObject({ mode: 0o4750, uid: 1000, gid: 1001 });
  expect(tree.find('srv/same')?.inode).toBe(tree.find('srv/data')?.inode);
  expect(tree.find('bin', false)?.inode).toMatchObject({ type: 'link', target: 'usr/bin' });
  expect(tree.find(long)?.inode).toMatchObject({ uid: 3_000_000_000 });
  expect([text('srv/data'), text(long), text('etc/new')]).toEqual(['data', 'deep', 'new']);
}

test.each([false, true])('a layout folder, with an index of platforms: %s', async (index) => {
  const made = await image();
  const folder = temporary();
  writeFiles(folder, layoutOf(made, index));
  await expectWhole(await imageIn(lookupIn(folder), undefined));
});

test.each([
  ['docker save, as before version 25', savedOf, false],
  ['docker save, as since', (made: TestImage) => [...membersOf(layoutOf(made)), ...savedOf(made)], false],
  ['oci-archive, packed', (made: TestImage) => membersOf(layoutOf(made)), true],
])('a saved tar: %s', async (_form, members, packed) => {
  const made = await image();
  const [folder, into] = [temporary(), temporary()];
  const path = join(folder, 'saved.tar');
  await writeTar(path, members(made));
  if (packed) writeFileSync(path, gzipSync(readFileSync(path)));
  await expectWhole(await imageIn(await unpackArchive(path, into, { left: 10 * MiB }), undefined));
});

const reference = (name: string) => {
  const parsed = parseOciReference(`oci:${name}`);
  if (parsed?.kind !== 'registry') throw new Error(name);
  return parsed;
};

test('a registry: a token for this repository alone, a tag that is resolved, blobs behind a redirect', async () => {
  const made = await image();
  const registry = await serveRegistry(made, '1');
  onTestFinished(() => registry.close());
  const found = await imageAt(reference(`${registry.host}/team/server:1`));
  expect(found.digest).toBe(made.manifest);
  await expectWhole(found);
  expect(registry.asked.filter((path) => path === '/token')).toHaveLength(1);
  // What a name means may change, the digest does not.
  await expectWhole(await imageAt(reference(`${registry.host}/team/server:1@${made.manifest}`)));
  const missing = imageAt(reference(`${registry.host}/team/server:2`));
  await expect(missing).rejects.toMatchObject({
    code: 'image-unavailable',
    message: expect.stringMatching(/no such image/),
  });
  const elsewhere = imageAt(reference(`${registry.host}/team/other:1`));
  await expect(elsewhere).rejects.toMatchObject({ code: 'image-unavailable' });
});

test('what has other content than its digest is refused, wherever it lies', async () => {
  for (const which of ['manifest', 'configuration', 'layer'] as const) {
    const made = await image();
    const digest = which === 'layer' ? made.layers[0]?.digest : made[which];
    const blob = Buffer.from(made.blobs.get(digest ?? '') ?? '');
    // Of a layer the time in its gzip header: what it holds stays the same.
    const at = which === 'layer' ? 4 : blob.length - 2;
    blob[at] = (blob[at] ?? 0) ^ 1;
    made.blobs.set(digest ?? '', blob);
    const folder = temporary();
    writeFiles(folder, layoutOf(made));
    const attempt = imageIn(lookupIn(folder), undefined).then((source) => treeOf(source));
    await expect(attempt, which).rejects.toMatchObject({
      code: 'image-build-failed',
      message: expect.stringMatching(/other content/),
    });
  }
  const made = await image();
  const registry = await serveRegistry(made, '1');
  onTestFinished(() => registry.close());
  made.blobs.set(sha256('x'), made.blobs.get(made.manifest) ?? Buffer.alloc(0));
  const pinned = imageAt(reference(`${registry.host}/team/server@${sha256('x')}`));
  await expect(pinned).rejects.toMatchObject({ message: expect.stringMatching(/other content/) });
});

const hostile: [what: string, members: Member[], says: RegExp][] = [
  ['a name that leads out', [{ name: '../../escape', content: 'x' }], /leaves the image/],
  ['a link to a file outside', [{ name: 'a', type: 'link', linkname: '../../etc/passwd', content: '' }], /leaves/],
  ['a link to nothing', [{ name: 'a', type: 'link', linkname: 'b', content: '' }], /is no file/],
  ['more than its allowance', [{ name: 'zeros', content: Buffer.alloc(11 * MiB) }], /larger than/],
];

test.each(hostile)('refuses a layer with %s', async (_what, members, says) => {
  const folder = temporary();
  writeFiles(folder, layoutOf(await makeImage({ layers: [{ members }] })));
  const attempt = imageIn(lookupIn(folder), undefined).then((source) => treeOf(source));
  await expect(attempt).rejects.toMatchObject({ code: 'image-build-failed', message: expect.stringMatching(says) });
});

/** The image of one layer that is given as bytes, in chunks of a size. */
function sourceOf(layer: Buffer, archive = layer, size = 64 * 1024): SourceImage {
  const configuration = JSON.stringify({ os: 'linux', architecture: 'amd64', rootfs: { diff_ids: [sha256(archive)] } });
  const chunks = Array.from({ length: Math.ceil(layer.length / size) }, (_, n) =>
    layer.subarray(n * size, (n + 1) * size),
  );
  return { digest: 'sha256:x', configuration, layers: [{ open: async () => Readable.from(chunks) }] };
}

/** Changes a header of an archive. Its checksum is over its bytes, its own field read as blanks (POSIX 1003.1, ustar). */
function changed(archive: Buffer, at: number, field: number, value: string): Buffer {
  const header = archive.subarray(at, at + 512);
  header.write(value, field, 'latin1');
  header.fill(' ', 148, 156);
  const sum = header.reduce((total, byte) => total + byte, 0);
  header.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148);
  return archive;
}

test('an archive cannot make its reader keep a header of any length', async () => {
  const archive = changed(await tarOf([{ name: 'x', content: Buffer.alloc(5 * MiB) }]), 0, 156, 'x');
  const attempt = treeOf(sourceOf(archive));
  await expect(attempt).rejects.toMatchObject({ message: expect.stringMatching(/Header exceeds max size/) });
});

test('how long a file is may be said by its pax record alone, as of those that are too long for the other field', async () => {
  const archive = await tarOf([{ name: 'big', content: Buffer.alloc(3000, 'b'), pax: { size: '3000' } }]);
  const { tree, contents } = await treeOf(sourceOf(changed(archive, 1024, 124, '00000000000')));
  const inode = tree.find('big')?.inode;
  expect(readFileSync(join(contents, inode?.type === 'file' ? (inode.content ?? '') : ''))).toHaveLength(3000);
});

test('a file that would come out as another one is refused: sparse, in either form', async () => {
  const gnu = changed(await tarOf([{ name: 'x', content: 'data' }]), 0, 156, 'S');
  const pax = await tarOf([{ name: 'x', content: 'data', pax: { 'GNU.sparse.major': '1' } }]);
  for (const archive of [gnu, pax])
    await expect(treeOf(sourceOf(archive))).rejects.toMatchObject({ message: expect.stringMatching(/sparse file/) });
});

test.each([1, 3, 700, 64 * 1024])('zstd of many frames, in chunks of %i bytes', async (size) => {
  const archive = await tarOf([
    { name: 'x', content: Buffer.from(Array.from({ length: 9000 }, (_, n) => (n * n) % 251)) },
  ]);
  const pieces = [archive.subarray(0, 5000), Buffer.alloc(0), archive.subarray(5000)].map((piece) =>
    zstdCompressSync(piece),
  );
  const skipped = (nibble: string, length: number) =>
    Buffer.concat([
      Buffer.from(`5${nibble}2a4d18${length.toString(16).padStart(2, '0')}000000`, 'hex'),
      Buffer.alloc(length),
    ]);
  const packed = Buffer.concat([skipped('0', 0), ...pieces, skipped('f', 9)]);
  const { tree } = await treeOf(sourceOf(packed, archive, size));
  expect(tree.find('x')).toBeDefined();
  const torn = treeOf(sourceOf(packed.subarray(0, -30), archive, size));
  await expect(torn).rejects.toMatchObject({ code: 'image-build-failed' });
});

test('a damaged archive and another packer are failures that say so', async () => {
  for (const [bytes, says] of [
    [Buffer.concat([Buffer.from('1f8b', 'hex'), Buffer.alloc(100)]), /cannot be read/],
    [Buffer.from('fd377a585a00', 'hex'), /xz or bzip2/],
  ] as const) {
    await expect(treeOf(sourceOf(bytes))).rejects.toMatchObject({ message: expect.stringMatching(says) });
  }
});

test('a layout cannot name files outside it, and of several images one must be named', async () => {
  const folder = temporary();
  const [first, second] = [await image(), await makeImage({ layers: [] })];
  mkdirSync(join(folder, 'layout'));
  const files = layoutOf(first);
  for (const [digest, data] of second.blobs) files.set(`blobs/sha256/${digest.slice(7)}`, data);
  const manifests = [first, second].map(({ manifest, blobs }) => ({
    digest: manifest,
    size: blobs.get(manifest)?.length,
  }));
  files.set('index.json', JSON.stringify({ manifests }));
  writeFiles(join(folder, 'layout'), files);
  writeFileSync(join(folder, 'outside'), 'x');
  const lookup = lookupIn(join(folder, 'layout'));
  expect(await lookup('../outside')).toBeUndefined();
  await expect(imageIn(lookup, undefined)).rejects.toMatchObject({
    message: expect.stringMatching(/holds several: name one with @sha256/),
  });
  const platform = { os: 'linux', architecture: 'amd64' };
  const write = (all: object[]) =>
    writeFileSync(join(folder, 'layout', 'index.json'), JSON.stringify({ manifests: all }));
  write(manifests.map((one) => ({ ...one, platform })));
  await expect(imageIn(lookup, undefined)).rejects.toMatchObject({ message: expect.stringMatching(/holds several/) });
  write(manifests.map((one, n) => ({ ...one, platform: n === 0 ? { ...platform, variant: 'v3' } : platform })));
  expect((await imageIn(lookup, undefined)).digest).toBe(second.manifest);
  expect((await imageIn(lookup, second.manifest as `sha256:${string}`)).digest).toBe(second.manifest);
});

test('names within an archive decide nothing about where it is unpacked', async () => {
  const [folder, into] = [temporary(), temporary()];
  const path = join(folder, 'saved.tar');
  await writeTar(path, [{ name: '../../../escape', content: 'x' }, ...savedOf(await image())]);
  await expectWhole(await imageIn(await unpackArchive(path, into, { left: 10 * MiB }), undefined));
});

test.each([
  ['no archive', Buffer.alloc(2000, 7), /cannot be built/],
  ['a torn one', gzipSync(Buffer.alloc(100_000)).subarray(0, 50), /cannot be built/],
  ['an archive of anything', gzipSync(Buffer.alloc(1024)), /neither an OCI layout/],
])('a file that is %s is a failure of its server alone', async (_what, bytes, says) => {
  const folder = temporary();
  writeFileSync(join(folder, 'saved.tar'), bytes);
  const attempt = ensureOci(join(folder, 'cache'), 'oci:./saved.tar', folder, () => undefined);
  const failure = { code: 'image-build-failed', message: expect.stringMatching(says) };
  await expect(attempt).rejects.toMatchObject(failure);
  await expect(ensureOci(join(folder, 'cache'), 'oci:./none', folder, () => undefined)).rejects.toMatchObject({
    code: 'image-unavailable',
  });
});
