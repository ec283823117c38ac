import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { ensureApp, packageFolderOf } from '../../origin/images/app.ts';
import { findBin, isNodeProgram } from '../../origin/images/npm-stage.ts';
import { inspectHost } from '../../origin/vm/host.ts';
import { processArguments, processStart } from '../../origin/vm/pid.ts';

function folderWith(files: Record<string, string>): string {
  const folder = mkdtempSync(join(tmpdir(), 'moorage-test-'));
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }));
  for (const [name, content] of Object.entries(files)) {
    mkdirSync(dirname(join(folder, name)), { recursive: true });
    writeFileSync(join(folder, name), content);
  }
  return folder;
}

test.each([
  ['a string is the program', '@s/tool', { bin: 'dist/x.js' }, undefined, 'node_modules/@s/tool/dist/x.js'],
  ['the only program', 'tool', { bin: { other: './o.js' } }, undefined, 'node_modules/tool/o.js'],
  [
    'the one named like the package',
    '@s/tool',
    { bin: { a: 'a.js', tool: 't.js' } },
    undefined,
    'node_modules/@s/tool/t.js',
  ],
  ['the one asked for', 'tool', { bin: { a: 'a.js', tool: 't.js' } }, 'a', 'node_modules/tool/a.js'],
])('npx runs %s', async (_rule, name, manifest, wanted, path) => {
  const folder = folderWith({ [`node_modules/${name}/package.json`]: JSON.stringify(manifest) });
  const bin = wanted === undefined ? { package: name } : { package: name, name: wanted };
  expect(await findBin({ folder, digest: '' }, bin)).toBe(path);
});

test.each([
  ['a library', {}, undefined, /has no programs/],
  ['an ambiguous package', { bin: { a: 'a.js', b: 'b.js' } }, undefined, /its programs are: a, b/],
  ['another program', { bin: { a: 'a.js' } }, 'z', /its programs are: a/],
])('%s is refused with what there is', async (_case, manifest, wanted, says) => {
  const folder = folderWith({ 'node_modules/tool/package.json': JSON.stringify(manifest) });
  const bin = wanted === undefined ? { package: 'tool' } : { package: 'tool', name: wanted };
  await expect(findBin({ folder, digest: '' }, bin)).rejects.toMatchObject({
    code: 'app-bin-missing',
    message: expect.stringMatching(says),
  });
});

test('Node programs are known by name or first line', async () => {
  const folder = folderWith({ 'a.mjs': '', node: '#!/usr/bin/env node\n', shell: '#!/bin/sh\nnode\n' });
  expect(await Promise.all(['a.mjs', 'node', 'shell'].map((name) => isNodeProgram(join(folder, name))))).toEqual([
    true,
    true,
    false,
  ]);
});

test('the folder to copy for a script is that of its package', async () => {
  const folder = folderWith({ 'package.json': '{}', 'dist/deep/index.js': '' });
  expect(await packageFolderOf(join(folder, 'dist/deep/index.js'))).toBe(folder);
});

test('servers without files need no image, and names cannot leave their folder', async () => {
  const cache = folderWith({});
  const image = await ensureApp(cache, { servers: { one: { npm: [] } } }, () => undefined);
  expect(image.path).toBeUndefined();
  await expect(image.resolveBin('one', 'x')).rejects.toMatchObject({ code: 'app-bin-missing' });
  for (const name of ['..', 'a/b', '']) {
    const attempt = ensureApp(cache, { servers: { [name]: { npm: [] } } }, () => undefined);
    await expect(attempt).rejects.toMatchObject({ code: 'app-install-failed' });
  }
});

test('a host report names what is missing and how to get it', async () => {
  const report = await inspectHost();
  expect(report.ok).toBe(report.missing.length === 0);
  expect(report.installCommand).toMatch(/^sudo apt-get update && sudo apt-get install .*qemu/);
});

test('a process is known by its start time and arguments', () => {
  expect(processStart(process.pid)).toMatch(/^\d+$/);
  expect(processArguments(process.pid).join(' ')).toContain('node');
  expect(processStart(2 ** 22 + 1)).toBeUndefined();
});
