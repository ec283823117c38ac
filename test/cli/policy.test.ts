import { expect, test } from 'vitest';
import { explained } from '../../cli/policy.ts';
import { parseConfigObject } from '../../shared/config.ts';
import type { ExplainAnswer } from '../../shared/explain.ts';
import { decide, type Use } from '../../shared/policy.ts';
import { ANONYMOUS } from '../../shared/principal.ts';

test('a decision is told with the rule that made it, and what kept the others from applying', () => {
  const { access } = parseConfigObject({
    mcpServers: { notes: { command: 'x' } },
    access: [
      { who: '*', servers: ['notes'] },
      { who: '*', tools: ['delete_*'], effect: 'deny' },
      { who: 'group:ops', tools: ['query'] },
    ],
  });
  const answer = (use: Use): ExplainAnswer => {
    const { allow, trace } = decide(access, ANONYMOUS, use);
    return { decision: { allow, trace: [...trace] }, access: access ? [...access] : null };
  };
  const say = (name: string) => explained(answer({ kind: 'tool', server: 'notes', name })).split('\n');
  expect(say('delete_page')).toEqual([
    'refused: access.1 denies it, and a rule that denies wins.',
    '',
    'RULE      EFFECT  WHO        HERE',
    'access.0  allow   *          applies',
    'access.1  deny    *          applies',
    'access.2  allow   group:ops  is about other callers',
    '',
  ]);
  expect(say('query')[0]).toBe('allowed: access.0 allows it, and no rule denies it.');
  const none = { decision: { allow: true, trace: [] }, access: null };
  expect(explained(none)).toMatch(/^allowed: there is no "access"/);
});
