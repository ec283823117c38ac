/**
 * Without root: a router of a user who is nobody builds the image of a machine, boots it, lets it sleep and wakes it, and every
 * wall that this host allows stands around its QEMU. What `moorage doctor` says of them is what is found at the process.
 */
import { execFile } from 'node:child_process';
import {
  chmodSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, inject, test } from 'vitest';
import { defaultCacheDir, noticingUses } from '../../origin/images/cache.ts';
import { ensureMachineImage } from '../../origin/images/machine-image.ts';
import { processStart } from '../../origin/vm/pid.ts';
import { connect, moorageUp, qemuPid, type Running, type User } from '../support/moorage.ts';
import { NOBODY, otherUser } from '../support/other-user.ts';

const home = mkdtempSync(join(tmpdir(), 'moorage-user-'));
chmodSync(home, 0o711);
const user = otherUser(home);
const state = join(home, 'project/state');
if (typeof user === 'string') console.warn(`\nNOTHING WITHOUT ROOT IS TESTED here: ${user}\n`);

describe.skipIf(!inject('guests') || typeof user === 'string')('without root', () => {
  const nobody = user as User;
  let moorage: Running;

  const doctor = async (): Promise<Map<string, string>> => {
    const [file = '', ...args] = nobody.command;
    const command = ['cli/moorage.ts', 'doctor', '--json', '--config', join(home, 'project/moorage.jsonc')];
    const { stdout } = await promisify(execFile)(file, [...args, ...command, '--state', state], { env: nobody.env });
    const { fit, checks } = JSON.parse(stdout) as { fit: boolean; checks: { id: string; state: string }[] };
    expect(fit).toBe(true);
    return new Map(checks.map((check) => [check.id, check.state]));
  };

  beforeAll(async () => {
    // What every machine has was built before: building it again here would show nothing more.
    const cache = defaultCacheDir();
    const { uses } = await noticingUses(() => ensureMachineImage(cache, () => undefined));
    for (const folder of uses) cpSync(join(cache, folder), join(home, 'cache', folder), { recursive: true });
    mkdirSync(join(home, 'project/scripted'), { recursive: true });
    const script = new URL('../support/scripted-server.mjs', import.meta.url).pathname;
    cpSync(script, join(home, 'project/scripted/scripted-server.mjs'));
    const guest = {
      command: 'node',
      args: ['scripted-server.mjs'],
      files: './scripted',
      image: { apt: ['jq'] },
      limits: { memory: '256M', disk: '256M' },
      sleep: { pauseAfter: '1s', hibernateAfter: '2s' },
    };
    writeFileSync(join(home, 'project/moorage.jsonc'), JSON.stringify({ mcpServers: { guest } }));
    await promisify(execFile)('chown', ['-R', `${NOBODY}:${NOBODY}`, home]);
    moorage = await moorageUp(join(home, 'project'), { user: nobody });
  });
  afterAll(() => moorage?.stop());

  test('a machine is built, boots, answers, hibernates and wakes with its processes, inside every wall that the doctor names', async () => {
    const session = await connect(moorage.url, 'guest');
    expect(await session.text('do', { action: 'count' })).toBe('1');
    const pid = qemuPid(state, 'guest');
    const checks = await doctor();
    const status = readFileSync(`/proc/${pid}/status`, 'utf8');
    const field = (name: string) => new RegExp(`^${name}:\\s*(.*)$`, 'm').exec(status)?.[1];
    expect(field('Name')).toMatch(/^qemu-system/);
    expect(field('Uid')).toBe(Array(4).fill(NOBODY).join('\t'));
    const none = '0'.repeat(16);
    expect([field('CapPrm'), field('CapEff'), field('CapAmb'), field('CapInh')]).toEqual([none, none, none, none]);
    expect([field('NoNewPrivs'), checks.get('privileges')]).toEqual(['1', 'ok']);
    expect([field('Seccomp'), checks.get('qemu-sandbox')]).toEqual(['2', 'ok']);
    for (const kind of ['user', 'net', 'ipc', 'uts']) {
      const isOwn = readlinkSync(`/proc/${pid}/ns/${kind}`) !== readlinkSync('/proc/self/ns/' + kind);
      expect([kind, isOwn]).toEqual([kind, checks.get('namespaces') === 'ok']);
    }
    const isLimited = readFileSync(`/proc/${pid}/cgroup`, 'utf8').includes('/moorage/guest-');
    expect([isLimited, checks.get('machine-user')]).toEqual([checks.get('cgroup') === 'ok', 'missing']);

    expect(checks.get('hibernation')).toBe('ok');
    while (existsSync(join(state, 'machines/guest/qemu.pid'))) await new Promise((resolve) => setTimeout(resolve, 50));
    expect(processStart(pid)).toBeUndefined();
    expect(existsSync(join(state, 'machines/guest/sleep/image.json'))).toBe(true);
    expect(await session.text('do', { action: 'count' })).toBe('2');
    expect(moorage.output()).toMatch(/machine guest: woken in/);
    await session.close();
  });

  test('its QEMU dies with the agent', async () => {
    const session = await connect(moorage.url, 'guest');
    await session.text('do', { action: 'count' });
    const pid = qemuPid(state, 'guest');
    await moorage.kill();
    while (processStart(pid) !== undefined) await new Promise((resolve) => setTimeout(resolve, 20));
    await session.close();
  });
});
