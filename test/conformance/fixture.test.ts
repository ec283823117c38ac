import { spawn } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';
import { expect, it } from 'vitest';
import { bundleFixture } from './bundle.ts';

it('needs no API of Node and no generated code at the edge', async () => {
  const { metafile } = await build({
    entryPoints: [fileURLToPath(new URL('edge.ts', import.meta.url))],
    bundle: true,
    write: false,
    metafile: true,
    platform: 'neutral',
    mainFields: ['module', 'main'],
    conditions: ['workerd', 'import'],
  });
  const inputs = Object.keys(metafile.inputs);
  // AJV compiles its validators with `new Function`, which a Worker refuses.
  expect(inputs.filter((input) => input.includes('node_modules/ajv'))).toEqual([]);
  expect(Object.values(metafile.outputs).flatMap((output) => output.imports)).toEqual([]);
});

it.each([
  { era: 'both', flags: [], discovered: true },
  { era: 'legacy only', flags: ['--legacy'], discovered: false },
])('answers over stdio from a folder with no node_modules ($era)', async ({ flags, discovered }) => {
  const folder = await mkdtemp(join(tmpdir(), 'moorage-fixture-'));
  try {
    const script = await bundleFixture(folder);
    const child = spawn(process.execPath, [script, ...flags], { cwd: folder, stdio: ['pipe', 'pipe', 'inherit'] });
    const _meta = {
      'io.modelcontextprotocol/protocolVersion': '2026-07-28',
      'io.modelcontextprotocol/clientCapabilities': {},
    };
    child.stdin.write(`${JSON.stringify({ jsonrpc: '2.0', id: 1, method: 'server/discover', params: { _meta } })}\n`);
    const line = await new Promise<string>((resolve) => child.stdout.once('data', (chunk) => resolve(String(chunk))));
    child.stdin.end();
    await new Promise((resolve) => child.once('close', resolve));
    expect('result' in JSON.parse(line)).toBe(discovered);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
});
