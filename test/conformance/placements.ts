/**
 * `npm run conformance [-- --revision R …] [--write]` judges one fixture server with the official suite, at every revision that it
 * knows or at those that are named: directly, and behind Moorage in every placement. `--write` puts the totals into the README's table.
 */
import { mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { REVISION as MODERN, postModern } from '../edge/modern-client.ts';
import { moorageUp, project } from '../support/moorage.ts';
import { bundleFixture } from './bundle.ts';
import { serveDirect } from './direct.ts';
import type { SuiteResult } from './results.ts';
import { REVISIONS, type Revision, runSuite } from './run.ts';

/** Where the fixture runs: the name of its server, and how the table calls it. */
export const PLACEMENTS = {
  edge: 'Moorage, at the edge',
  machine: 'Moorage, stdio in a microVM',
  http: 'Moorage, over HTTP near an origin',
} as const;
export type Placement = keyof typeof PLACEMENTS;

/** A project that serves the fixture in every placement. `url` is where it is served directly. */
export async function fixtureProject(url: string): Promise<string> {
  const { dir } = project({
    // The suite looks at what a server does that ends a stream in the middle of a call (SEP-1699).
    edge: { streams: { endIdleAfterMs: 100 } },
    mcpServers: {
      edge: { runtime: 'edge', tools: new URL('./edge.ts', import.meta.url).pathname },
      machine: { command: 'node', args: ['stdio.mjs'], files: './fixture' },
      http: { url },
    },
  });
  await bundleFixture(join(dir, 'fixture'));
  return dir;
}

/**
 * Judges one URL at one revision. Of 2026-07-28 the suite looks at HTTP statuses of errors, and a call that waits for its machine
 * is answered by a stream, whose status is 200 whatever its end: so the server that is judged has been called before.
 */
export async function judge(url: string, revision: Revision): Promise<SuiteResult> {
  if (revision === MODERN)
    await (await postModern(url, 'tools/call', { name: 'test_simple_text', arguments: {} })).text();
  return await runSuite({ url, revision, outDir: mkdtempSync(join(tmpdir(), 'moorage-conformance-')) });
}

/** `84 of 84 checks, 30 of 30 scored scenarios`. */
export function total({ checks, scored }: SuiteResult): string {
  return `${checks.passed} of ${checks.passed + checks.failed} checks, ${scored.passed} of ${scored.total} scored scenarios`;
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      revision: { type: 'string', multiple: true, default: [...REVISIONS] },
      write: { type: 'boolean', default: false },
    },
  });
  const names = Object.keys(PLACEMENTS) as Placement[];
  const direct = await serveDirect();
  const moorage = await moorageUp(await fixtureProject(direct.url));
  const rows: string[] = [];
  try {
    for (const revision of values.revision as Revision[]) {
      const cells: string[] = [];
      for (const url of [direct.url, ...names.map((name) => `${moorage.url}/${name}/mcp`)]) {
        const result = await judge(url, revision);
        cells.push(total(result));
        console.log(`${revision} ${url}: ${total(result)}`);
        for (const { scenario, check, message } of result.failures)
          console.log(`  FAILED ${scenario} ${check}: ${message}`);
        for (const { scenario, check, message } of result.warnings)
          console.log(`  WARNED ${scenario} ${check}: ${message}`);
        if (!result.ok) process.exitCode = 1;
      }
      rows.push(`| ${[revision, ...cells].join(' | ')} |`);
    }
  } finally {
    await moorage.stop();
    await direct.close();
  }
  const head = `| ${['Revision', 'Directly', ...names.map((name) => PLACEMENTS[name])].join(' | ')} |`;
  const table = [head, head.replaceAll(/[^|]+/g, ' --- '), ...rows].join('\n');
  console.log(`\n${table}`);
  if (values.write) writeTable(new URL('../../README.md', import.meta.url).pathname, table);
}

function writeTable(file: string, table: string): void {
  const text = readFileSync(file, 'utf8');
  const marked = /(<!-- conformance:begin -->\n)[\s\S]*?(\n<!-- conformance:end -->)/;
  writeFileSync(
    file,
    text.replace(marked, (_all, begin: string, end: string) => `${begin}${table}${end}`),
  );
}

if (import.meta.main) await main();
