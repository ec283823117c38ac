/** The official suite against the fixture behind Moorage, in every placement. */
import { afterAll, beforeAll, describe, expect, inject, test } from 'vitest';
import { moorageUp, type Running } from '../support/moorage.ts';
import { type Direct, serveDirect } from './direct.ts';
import { EXPECTED_FAILURES } from './expected-failures.ts';
import { fixtureProject, judge, type Placement } from './placements.ts';
import type { Revision } from './run.ts';

describe.skipIf(!inject('guests'))('conformance behind Moorage', () => {
  let direct: Direct;
  let moorage: Running;
  beforeAll(async () => {
    direct = await serveDirect();
    moorage = await moorageUp(await fixtureProject(direct.url));
  });
  afterAll(async () => {
    await moorage.stop();
    await direct.close();
  });

  test.each<[Placement, Revision, number]>([
    ['edge', '2025-11-25', 84],
    ['machine', '2025-11-25', 84],
    ['edge', '2025-06-18', 56],
    ['machine', '2025-06-18', 56],
    ['edge', '2026-07-28', 164],
    ['machine', '2026-07-28', 164],
    ['http', '2026-07-28', 164],
  ])('%s at %s passes %i checks and fails only what is expected', async (placement, revision, checks) => {
    const result = await judge(`${moorage.url}/${placement}/mcp`, revision);
    const failed = new Set(result.failures.map(({ scenario }) => scenario));
    const why = result.failures.map(({ scenario, check, message }) => `${scenario} ${check}: ${message}`).join('\n');
    expect([...failed].sort(), why).toEqual(Object.keys(EXPECTED_FAILURES[revision]));
    expect(result.checks.passed).toBeGreaterThanOrEqual(checks);
    expect(result.ok).toBe(true);
  });
});
