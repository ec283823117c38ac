import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { gzipSync } from 'node:zlib';
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
  expect([text('srv/data'), text(long)]).toEqual(['data', 'deep']);
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

test('an archive cannot make its reader keep a header of any length', async () => {
  const header = (await tarOf([{ name: 'x', content: Buffer.alloc(2 * MiB) }])).subarray();
  header.write('x', 156);
  // The checksum of a header is over its bytes, its own field read as blanks (POSIX 1003.1, ustar).
  header.fill(' ', 148, 156);
  const sum = header.subarray(0, 512).reduce((total, byte) => total + byte, 0);
  header.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148);
  const made = await makeImage({ layers: [{ members: [] }] });
  const configuration = JSON.stringify({ os: 'linux', architecture: 'amd64', rootfs: { diff_ids: [sha256(header)] } });
  const source = { digest: made.manifest, configuration, layers: [{ open: async () => Readable.from([header]) }] };
  const attempt = treeOf(source as unknown as SourceImage);
  await expect(attempt).rejects.toMatchObject({ message: expect.stringMatching(/a header in it has no end/) });
});

test('a damaged archive and another packer are failures that say so', async () => {
  for (const [bytes, says] of [
    [Buffer.concat([Buffer.from('1f8b', 'hex'), Buffer.alloc(100)]), /cannot be read/],
    [Buffer.from('fd377a585a00', 'hex'), /xz or bzip2/],
  ] as const) {
    const configuration = JSON.stringify({ os: 'linux', architecture: 'amd64', rootfs: { diff_ids: [sha256(bytes)] } });
    const source = { digest: sha256('x'), configuration, layers: [{ open: async () => Readable.from([bytes]) }] };
    await expect(treeOf(source as unknown as SourceImage)).rejects.toMatchObject({
      message: expect.stringMatching(says),
    });
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
  expect((await imageIn(lookup, second.manifest as `sha256:${string}`)).digest).toBe(second.manifest);
});

test('names within an archive decide nothing about where it is unpacked', async () => {
  const [folder, into] = [temporary(), temporary()];
  const path = join(folder, 'saved.tar');
  await writeTar(path, [{ name: '../../../escape', content: 'x' }, ...savedOf(await image())]);
  await expectWhole(await imageIn(await unpackArchive(path, into, { left: 10 * MiB }), undefined));
});

test.each([
  ['no archive', Buffer.alloc(2000, 7), /damaged or hostile/],
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
