import { describe, expect, it } from 'vitest';
import type { Check } from './results.ts';
import { readResults, scenarioOf } from './results.ts';

const output = `Running requirements 2025-11-25 (4 scenarios) against http://localhost:1/mcp

=== Running scenario: ping ===
Failed to run scenario tools-list: Error: fetch failed
    at somewhere

=== SUMMARY ===
✓ ping: 2 passed, 0 failed
✗ tools-list: 0 passed, 1 failed
✓ server-sse-polling: 1 passed, 0 failed
✗ json-schema-2020-12: 0 passed, 1 failed

Total: 3 passed, 2 failed

Not scored for 2025-11-25: 2 scenario(s) run, 1 failing. These do not affect conformance.
  ✓ server-sse-polling (pending)
  ✗ json-schema-2020-12 (pending)
`;

const checksOf = new Map<string, Check[]>([
  [
    'ping',
    [
      { id: 'ping', status: 'SUCCESS' },
      { id: 'wire-schema-valid', status: 'SUCCESS' },
    ],
  ],
  [
    'server-sse-polling',
    [
      { id: 'stream-closed', status: 'INFO' },
      { id: 'priming', status: 'SUCCESS' },
      { id: 'retry', status: 'WARNING', errorMessage: 'no retry field' },
    ],
  ],
  ['json-schema-2020-12', [{ id: 'defs', status: 'FAILURE', errorMessage: '$defs lost' }]],
]);

describe('readResults', () => {
  const result = readResults(output, checksOf);

  it('counts a scenario that threw before it wrote anything as failed, with what it threw', () => {
    expect(result.failures).toContainEqual({
      scenario: 'tools-list',
      check: 'tools-list',
      message: 'Error: fetch failed',
      scored: true,
    });
    expect(result.ok).toBe(false);
  });

  it('keeps what does not count apart from what does', () => {
    expect(result.scored).toEqual({ passed: 1, total: 2 });
    expect(result.scenarios).toEqual({ passed: 2, total: 4 });
    expect(result.failures.find((failure) => failure.scenario === 'json-schema-2020-12')?.scored).toBe(false);
  });

  it('neither passes nor fails on information and warnings', () => {
    expect(result.checks).toEqual({ passed: 3, failed: 2, warnings: 1, skipped: 0 });
    expect(result.warnings.map((warning) => warning.message)).toEqual(['no retry field']);
  });

  it('is not ok when nothing ran', () => {
    expect(readResults('Server test error: connect ECONNREFUSED', new Map()).ok).toBe(false);
  });

  it('reads what a killed run left and is not ok with it', () => {
    const killed = readResults(
      '=== Running scenario: ping ===\nKilled by SIGKILL\n',
      new Map([...checksOf].slice(0, 1)),
    );
    expect(killed.scenarios).toEqual({ passed: 1, total: 1 });
    expect(killed.ok).toBe(false);
  });
});

describe('scenarioOf', () => {
  it.each([
    ['server-ping-2026-11-21T14-02-17-823Z', 'ping'],
    ['server-json-schema-2020-12-2026-11-21T14-02-17-823Z', 'json-schema-2020-12'],
    ['server-server-sse-polling-2026-11-21T14-02-17-823Z', 'server-sse-polling'],
    ['notes', undefined],
  ])('%s', (directory, scenario) => {
    expect(scenarioOf(directory)).toBe(scenario);
  });
});
