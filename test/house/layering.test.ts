/** The halves meet only in `shared/`: read from the imports themselves. */
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { dirname, join, normalize } from 'node:path';
import { describe, expect, test } from 'vitest';

const ROOT = new URL('../..', import.meta.url).pathname;

interface Layer {
  /** Folder; the longest one that a file lies in is its layer. */
  readonly folder: string;
  /** Folders it may import from. */
  readonly from: readonly string[];
  /** Whether it may use Node's modules. */
  readonly node: boolean;
}

const LAYERS: readonly Layer[] = [
  { folder: 'shared', from: ['shared'], node: false },
  { folder: 'edge', from: ['edge', 'shared'], node: false },
  { folder: 'edge/local', from: ['edge/local', 'shared'], node: true },
  { folder: 'origin', from: ['origin', 'origin/guest', 'shared'], node: true },
  { folder: 'origin/guest', from: ['origin/guest'], node: true },
  { folder: 'router', from: ['router', 'edge/local', 'origin', 'shared'], node: true },
  { folder: 'cli', from: ['cli', 'router', 'edge/local', 'origin', 'shared'], node: true },
  { folder: 'bench', from: ['bench', 'origin', 'router', 'shared'], node: true },
  { folder: 'examples', from: ['examples'], node: true },
  { folder: 'servers', from: ['servers'], node: false },
];

const layerOf = (file: string): Layer | undefined =>
  LAYERS.filter(({ folder }) => file.startsWith(`${folder}/`)).sort((a, b) => b.folder.length - a.folder.length)[0];

/** Specifiers of static imports, re-exports and dynamic imports of a module. */
function importsOf(source: string): string[] {
  const code = source.replaceAll(/\/\*[\s\S]*?\*\//g, '').replaceAll(/^\s*\/\/.*$/gm, '');
  const found = code.matchAll(
    /(?:^|[\s;])(?:import|export)\s+(?:[^'"();]*?\sfrom\s+)?['"]([^'"]+)['"]|\bimport\(\s*['"]([^'"]+)['"]/g,
  );
  return [...found].map((match) => match[1] ?? match[2] ?? '');
}

function faults(file: string, source: string): string[] {
  const layer = layerOf(file);
  if (!layer) return [];
  return importsOf(source).flatMap((specifier) => {
    if (specifier.startsWith('.')) {
      const target = normalize(join(dirname(file), specifier));
      const to = layerOf(target)?.folder ?? target;
      return layer.from.includes(to) ? [] : [`${file} imports ${to} (${specifier})`];
    }
    if (specifier.startsWith('node:') && !layer.node) return [`${file} imports ${specifier}, which its runtime lacks`];
    if (specifier.startsWith('cloudflare:') && layer.folder !== 'edge')
      return [`${file} imports ${specifier}, which only the Worker has`];
    return [];
  });
}

/** Modules of `origin/vm` that are no driver's own: the seam, and looking at the host. */
const BESIDE_DRIVER = ['driver', 'error', 'command', 'host', 'pid'];
/** The composition root, and what tells an owner about the host that QEMU would run on. */
const KNOW_QEMU = ['router/origin-half.ts', 'origin/doctor/facts.ts', 'origin/doctor/checks.ts'];

/** Folders whose work it is to look into a driver: what tests it, what measures it, and the driver's own. */
const LOOK_INTO_QEMU = ['origin/vm/', 'test/', 'bench/'];

/** Imports of what is QEMU's: another driver is a folder beside it, and the composition root's choice (docs/drivers.md). */
function driverFaults(file: string, source: string): string[] {
  if (LOOK_INTO_QEMU.some((folder) => file.startsWith(folder)) || KNOW_QEMU.includes(file)) return [];
  return importsOf(source).flatMap((specifier) => {
    const module = /^origin\/vm\/(.+)\.ts$/.exec(normalize(join(dirname(file), specifier)))?.[1];
    return module === undefined || BESIDE_DRIVER.includes(module) ? [] : [`${file} imports origin/vm/${module}.ts`];
  });
}

describe('layers', () => {
  const files = execFileSync('git', ['ls-files', '*.ts'], { cwd: ROOT, encoding: 'utf8' })
    .split('\n')
    .filter((file) => layerOf(file));

  test('every module imports only what its layer may', () => {
    expect(files.length).toBeGreaterThan(20);
    expect(files.flatMap((file) => faults(file, readFileSync(join(ROOT, file), 'utf8')))).toEqual([]);
  });

  test('what is QEMU’s is known to its folder and to who chooses it', () => {
    expect(files.flatMap((file) => driverFaults(file, readFileSync(join(ROOT, file), 'utf8')))).toEqual([]);
    expect(driverFaults('origin/machines.ts', `import { x } from './vm/qemu.ts';`)).toHaveLength(1);
    expect(driverFaults('router/state.ts', `import { x } from '../origin/vm/snapshot.ts';`)).toHaveLength(1);
  });

  test.each([
    ['edge/a.ts', `import { x } from '../origin/log.ts';`],
    ['edge/a.ts', `const x = await import('../origin/log.ts');`],
    ['edge/a.ts', `import fs from 'node:fs';`],
    ['edge/a.ts', `import { x } from './local/edge.ts';`],
    ['origin/a.ts', `export { x } from '../edge/sse.ts';`],
    ['origin/guest/a.ts', `import { x } from '../log.ts';`],
    ['origin/a.ts', `import 'cloudflare:workers';`],
    ['shared/a.ts', `import type { X } from '../edge/x.ts';`],
    ['shared/a.ts', `import {\n  a,\n  b,\n} from '../cli/up.ts';`],
    ['router/a.ts', `import { x } from '../cli/up.ts';`],
    ['servers/a.ts', `import { x } from '../shared/errors.ts';`],
  ])('the test itself finds a fault in %s: %s', (file, source) => {
    expect(faults(file, source)).toHaveLength(1);
  });
});
