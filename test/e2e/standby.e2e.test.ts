/** A QEMU that stands by, through the whole path: SDK client, workerd, agent, QEMU guest. */
import { cpSync, existsSync, mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, inject, test } from 'vitest';
import { processStart } from '../../origin/vm/pid.ts';
import { type Connected, connect, moorageUp, project, type Running } from '../support/moorage.ts';

const ROOT = new URL('../..', import.meta.url).pathname;
const { dir, state } = project({
  origin: { standby: 1 },
  mcpServers: {
    sleeper: {
      command: 'node',
      args: ['scripted-server.mjs'],
      files: './scripted',
      limits: { memory: '256M', disk: '256M' },
      sleep: { pauseAfter: '1s', hibernateAfter: '2s' },
    },
  },
});
mkdirSync(join(dir, 'scripted'));
cpSync(join(ROOT, 'test/support/scripted-server.mjs'), join(dir, 'scripted/scripted-server.mjs'));

const folder = join(state, 'machines/sleeper');

/** Its process id, when there is one although the machine sleeps. */
function waiting(): number | undefined {
  const [image, pid] = [join(folder, 'sleep/image.json'), join(folder, 'qemu.pid')];
  if (!existsSync(image) || !existsSync(pid)) return undefined;
  return (JSON.parse(readFileSync(pid, 'utf8')) as { pid: number }).pid;
}

async function standsBy(not?: number): Promise<number> {
  for (;;) {
    const pid = waiting();
    if (pid !== undefined && pid !== not) return pid;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

describe.skipIf(!inject('guests'))('a QEMU that stands by', () => {
  let moorage: Running;
  let session: Connected;

  beforeAll(async () => {
    moorage = await moorageUp(dir);
    session = await connect(moorage.url, 'sleeper');
  });
  afterAll(async () => {
    await session.close();
    await moorage.stop();
  });

  test('is what the machine wakes in, and goes with the agent', async () => {
    expect(await session.text('do', { action: 'count' })).toBe('1');
    const running = (JSON.parse(readFileSync(join(folder, 'qemu.pid'), 'utf8')) as { pid: number }).pid;
    const first = await standsBy(running);
    expect(await session.text('do', { action: 'count' })).toBe('2');
    expect((JSON.parse(readFileSync(join(folder, 'qemu.pid'), 'utf8')) as { pid: number }).pid).toBe(first);
    const second = await standsBy(first);
    await moorage.stop();
    expect([first, second].map(processStart)).toEqual([undefined, undefined]);
    expect(existsSync(join(folder, 'sleep/image.json'))).toBe(true);
  });
});
