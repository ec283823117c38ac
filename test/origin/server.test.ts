import { expect, test } from 'vitest';
import { machineDefinitions, serverDefinitions } from '../../origin/server.ts';
import { parseConfig } from '../../shared/config.ts';

const never = Number.POSITIVE_INFINITY;
const sleepOf = (...sleeps: unknown[]) => {
  const servers = sleeps.map((sleep, n) => [`s${n}`, { command: 'x', machine: 'm', ...(sleep ? { sleep } : {}) }]);
  const config = parseConfig(JSON.stringify({ mcpServers: Object.fromEntries(servers) }));
  return machineDefinitions(serverDefinitions(config))[0]?.sleep;
};

test.each<[string, unknown[], object]>([
  ['nothing is said', [undefined], { pauseAfterMs: 10_000, hibernateAfterMs: 300_000, stopAfterMs: never }],
  [
    'servers share it: of each time the longest',
    [
      { pauseAfter: '1s', hibernateAfter: '1h', stopAfter: '2d' },
      { pauseAfter: '1m', stopAfter: '1d' },
    ],
    { pauseAfterMs: 60_000, hibernateAfterMs: 3_600_000, stopAfterMs: 172_800_000 },
  ],
  [
    'one of them never sleeps',
    [{ pauseAfter: '1s' }, 'always-on'],
    { pauseAfterMs: never, hibernateAfterMs: never, stopAfterMs: never },
  ],
])('when a machine sleeps if %s', (_what, sleeps, policy) => {
  expect(sleepOf(...sleeps)).toEqual(policy);
});

test.each([{ sleep: 'always-on' }, { egress: ['a.example:443'] }])('%j is no part of what runs', (said) => {
  const [a, b] = [{}, said].map(
    (one) => serverDefinitions(parseConfig(JSON.stringify({ mcpServers: { s: { command: 'x', ...one } } })))[0],
  );
  expect(a?.deployment).toBe(b?.deployment);
});
