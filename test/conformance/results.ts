/**
 * Owns the reading of what the conformance CLI leaves behind: one `checks.json` for each scenario, and an output that
 * alone tells which scenarios never got that far and which do not count.
 */

export interface Check {
  id: string;
  status: 'SUCCESS' | 'FAILURE' | 'WARNING' | 'SKIPPED' | 'INFO';
  errorMessage?: string;
}

export interface Failure {
  scenario: string;
  check: string;
  message: string;
  /** False for a scenario the revision's requirements run but do not count. */
  scored: boolean;
}

export interface Scenario {
  name: string;
  passed: number;
  failed: number;
  scored: boolean;
}

export interface SuiteResult {
  /** The run came to its end and every scored scenario passed. */
  ok: boolean;
  checks: { passed: number; failed: number; warnings: number; skipped: number };
  /** All the scenarios that ran. */
  scenarios: { passed: number; total: number };
  /** Those among them that count towards conformance. */
  scored: { passed: number; total: number };
  failures: Failure[];
  /** Checks that SHOULD pass and did not. */
  warnings: Failure[];
  perScenario: Scenario[];
}

/** `server-ping-2026-11-21T14-02-17-823Z` belongs to the scenario `ping`. */
export function scenarioOf(directory: string): string | undefined {
  return /^server-(.+)-\d{4}-\d\d-\d\dT[\d-]+Z$/.exec(directory)?.[1];
}

/** `output` is what the CLI printed, `checksOf` holds the checks of the scenarios that finished. */
export function readResults(output: string, checksOf: ReadonlyMap<string, Check[]>): SuiteResult {
  const [head = '', unscoredPart = ''] = output.split(/^Not scored for /m);
  const unscored = new Set([...unscoredPart.matchAll(/^ {2}[✓✗] (\S+) \(/gm)].map(([, name]) => name));
  const summary = head.split('=== SUMMARY ===')[1] ?? '';
  const listed = [...summary.matchAll(/^[✓✗] (\S+): \d+ passed, \d+ failed$/gm)].map(([, name]) => name ?? '');
  const names = new Set([...listed, ...checksOf.keys()]);

  const failures: Failure[] = [];
  const warnings: Failure[] = [];
  const perScenario: Scenario[] = [];
  const totals = { passed: 0, failed: 0, warnings: 0, skipped: 0 };
  for (const name of names) {
    const scored = !unscored.has(name);
    const checks = checksOf.get(name) ?? [
      { id: name, status: 'FAILURE', errorMessage: thrownBy(name, head) } satisfies Check,
    ];
    const of = (status: Check['status']) => checks.filter((check) => check.status === status);
    const told = ({ id, errorMessage }: Check) => ({
      scenario: name,
      check: id,
      message: errorMessage ?? 'no message',
      scored,
    });
    failures.push(...of('FAILURE').map(told));
    warnings.push(...of('WARNING').map(told));
    totals.passed += of('SUCCESS').length;
    totals.failed += of('FAILURE').length;
    totals.warnings += of('WARNING').length;
    totals.skipped += of('SKIPPED').length;
    perScenario.push({ name, passed: of('SUCCESS').length, failed: of('FAILURE').length, scored });
  }

  const counted = perScenario.filter((scenario) => scenario.scored);
  const scored = { passed: passing(counted), total: counted.length };
  return {
    ok: /^(=== SUMMARY ===|Test Results:)$/m.test(output) && scored.total > 0 && scored.passed === scored.total,
    checks: totals,
    scenarios: { passed: passing(perScenario), total: perScenario.length },
    scored,
    failures,
    warnings,
    perScenario,
  };
}

function passing(scenarios: Scenario[]): number {
  return scenarios.filter((scenario) => scenario.failed === 0).length;
}

function thrownBy(name: string, output: string): string {
  const thrown = output.split(`Failed to run scenario ${name}: `)[1]?.split('\n')[0];
  return thrown ?? 'The scenario left no results';
}
