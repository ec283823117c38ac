/**
 * `node test/conformance/main.ts --url URL --revision 2025-11-25 [--scenario NAME] [--token TOKEN] [--out DIR] [--json]`
 * judges a server and exits 0 when every scored scenario passed. Without `--url` it judges the direct baseline.
 */
import { mkdtemp } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { serveDirect } from './direct.ts';
import type { SuiteResult } from './results.ts';
import type { Revision } from './run.ts';
import { runSuite } from './run.ts';

const { values } = parseArgs({
  options: {
    url: { type: 'string' },
    revision: { type: 'string', default: '2025-11-25' },
    scenario: { type: 'string' },
    token: { type: 'string' },
    out: { type: 'string' },
    json: { type: 'boolean', default: false },
  },
});

const direct = values.url ? undefined : await serveDirect();
try {
  const outDir = values.out ?? (await mkdtemp(join(tmpdir(), 'moorage-conformance-')));
  const result = await runSuite({
    url: values.url ?? direct?.url ?? '',
    revision: values.revision as Revision,
    outDir,
    ...(values.scenario && { scenario: values.scenario }),
    ...(values.token && { headers: { authorization: `Bearer ${values.token}` } }),
  });
  console.log(values.json ? JSON.stringify(result, null, 2) : table(result));
  if (!values.json) console.log(`\nDetails: ${outDir}`);
  process.exitCode = result.ok ? 0 : 1;
} finally {
  await direct?.close();
}

function table({ checks, scenarios, scored, failures, warnings, perScenario }: SuiteResult): string {
  return [
    '| Scenario | Passed | Failed | Counts |',
    '|---|--:|--:|---|',
    ...perScenario.map(
      ({ name, passed, failed, scored }) => `| ${name} | ${passed} | ${failed} | ${scored ? 'yes' : 'no'} |`,
    ),
    '',
    `${checks.passed}/${checks.passed + checks.failed} checks in ${scenarios.total} scenarios, ` +
      `${scored.passed}/${scored.total} scored scenarios pass, ${checks.warnings} warnings`,
    ...failures.map(({ scenario, check, message }) => `FAILED ${scenario} ${check}: ${message}`),
    ...warnings.map(({ scenario, check, message }) => `WARNED ${scenario} ${check}: ${message}`),
  ].join('\n');
}
