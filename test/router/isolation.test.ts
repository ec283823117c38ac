import { describe, expect, test } from 'vitest';
import { settleIsolation } from '../../router/isolation.ts';
import { parseConfigObject } from '../../shared/config.ts';

const edge = { runtime: 'edge', tools: './x.ts' };
const guest = { command: 'x' };
const plain = { command: 'x', runtime: 'process' };
const LACKING = { ok: false, missing: ['qemu-system-x86_64'], installCommand: 'sudo apt-get install qemu' };
const FOREIGN = {
  ok: false,
  missing: ['linux-x86_64', 'dpkg', 'apt-get'],
  installCommand: 'sudo apt-get install qemu',
};
const FIT = { ok: true, missing: [], installCommand: '' };

function settle(mcpServers: object, fallback: 'refuse' | 'process' | 'skip', report: typeof FIT | typeof LACKING) {
  const warnings: string[] = [];
  const config = parseConfigObject({ mcpServers });
  const log = { warn: (text: string) => void warnings.push(text) };
  const settled = settleIsolation(config, fallback, log, () => Promise.resolve(report));
  return settled.then(({ config, isolation }) => ({ served: [...config.servers.keys()], isolation, warnings }));
}

describe('what separates servers from a host', () => {
  test.each([
    ['nothing to separate', { edge }, 'refuse', LACKING, ['edge'], 'none'],
    ['only what asked for no separation', { edge, plain }, 'refuse', LACKING, ['edge', 'plain'], 'process'],
    ['a fit host', { edge, guest }, 'refuse', FIT, ['edge', 'guest'], 'vm'],
    ['left out', { edge, guest }, 'skip', LACKING, ['edge'], 'none'],
    ['left out beside a plain one', { plain, guest }, 'skip', LACKING, ['plain'], 'process'],
    ['without isolation, as was asked', { edge, guest }, 'process', LACKING, ['edge', 'guest'], 'process'],
  ] as const)('%s', async (_name, servers, fallback, report, served, isolation) => {
    expect(await settle(servers, fallback, report)).toMatchObject({ served, isolation });
  });

  test('a refusal names the command; on a platform without machines it names none', async () => {
    const code = 'host_unfit';
    await expect(settle({ guest }, 'refuse', LACKING)).rejects.toMatchObject({
      code,
      message: expect.stringMatching(/lacks: qemu-system-x86_64\. Install it with: sudo apt-get install qemu\n.*guest/),
    });
    await expect(settle({ guest }, 'refuse', FOREIGN)).rejects.toMatchObject({
      code,
      message: expect.not.stringContaining('sudo'),
    });
  });

  test('what is given up is said', async () => {
    expect((await settle({ guest }, 'process', LACKING)).warnings.join()).toMatch(/NO ISOLATION.*plain processes/);
    expect((await settle({ edge, guest }, 'skip', LACKING)).warnings.join()).toMatch(/Not served: guest/);
  });
});
