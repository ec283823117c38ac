/** The official suite against the fixture behind Moorage, at the edge and in a machine. */
import { afterAll, beforeAll, describe, expect, inject, test } from 'vitest';
import { moorageUp, type Running } from '../support/moorage.ts';
import { fixtureProject, judge, type Placement } from './placements.ts';

describe.skipIf(!inject('guests'))('conformance behind Moorage', () => {
  let moorage: Running;
  beforeAll(async () => {
    moorage = await moorageUp(await fixtureProject());
  });
  afterAll(async () => {
    await moorage.stop();
  });

  test.each<[Placement, '2025-11-25' | '2025-06-18', number]>([
    ['edge', '2025-11-25', 80],
    ['machine', '2025-11-25', 80],
    ['edge', '2025-06-18', 56],
    ['machine', '2025-06-18', 56],
  ])('%s at %s passes %i checks and fails none', async (placement, revision, checks) => {
    const result = await judge(`${moorage.url}/${placement}/mcp`, revision);
    expect(result.failures).toEqual([]);
    expect(result.checks.passed).toBeGreaterThanOrEqual(checks);
    expect(result.ok).toBe(true);
  });
});
