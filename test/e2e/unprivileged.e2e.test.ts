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
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, inject, onTestFinished, test } from 'vitest';
import { processStart } from '../../origin/vm/pid.ts';
import { connect, moorageUp, qemuPid, type Running, type User } from '../support/moorage.ts';
import { hasNamespaces, NOBODY, otherUser } from '../support/other-user.ts';
import { copyMachineImage } from '../support/own-cache.ts';

const home = mkdtempSync(join(tmpdir(), 'moorage-user-'));
chmodSync(home, 0o711);
const user = otherUser(home);
const state = join(home, 'project/state');
if (typeof user === 'string') console.warn(`\nNOTHING WITHOUT ROOT IS TESTED here: ${user}\n`);

describe.skipIf(!inject('guests') || typeof user === 'string')('without root', () => {
  const nobody = user as User;
  let moorage: Running;

  /** What a command prints that this user runs. */
  const run = async (command: string, ...more: string[]): Promise<string> => {
    const [file = '', ...args] = [...nobody.prefix, nobody.node];
    const where = ['--config', join(home, 'project/moorage.jsonc'), '--state', state];
    const all = [...args, 'cli/moorage.ts', command, ...where, ...more];
    return (await promisify(execFile)(file, all, { env: nobody.env })).stdout;
  };
  const doctor = async (): Promise<Map<string, string>> => {
    const { fit, checks } = JSON.parse(await run('doctor', '--json')) as {
      fit: boolean;
      checks: { id: string; state: string }[];
    };
    expect(fit).toBe(true);
    return new Map(checks.map((check) => [check.id, check.state]));
  };

  beforeAll(async () => {
    // What every machine has was built before: building it again here would show nothing more.
    await copyMachineImage(join(home, 'cache'));
    const script = new URL('../support/scripted-server.mjs', import.meta.url).pathname;
    for (const folder of ['project', 'bare']) {
      mkdirSync(join(home, folder, 'scripted'), { recursive: true });
      cpSync(script, join(home, folder, 'scripted/scripted-server.mjs'));
    }
    const guest = {
      command: 'node',
      args: ['scripted-server.mjs'],
      files: './scripted',
      image: { apt: ['jq'] },
      limits: { memory: '256M', disk: '256M' },
      sleep: { pauseAfter: '1s', hibernateAfter: '2s' },
    };
    for (const folder of ['project', 'bare'])
      writeFileSync(join(home, folder, 'moorage.jsonc'), JSON.stringify({ mcpServers: { guest } }));
    await promisify(execFile)('chown', ['-R', `${NOBODY}:${NOBODY}`, home]);
    moorage = await moorageUp(join(home, 'project'), { user: nobody });
  });
  afterAll(() => moorage?.stop());

  test('a machine is built, boots, answers, hibernates and wakes with its processes, inside every wall that the doctor names', async () => {
    const session = await connect(moorage.url, 'guest');
    expect(await session.text('do', { action: 'count' })).toBe('1');
    // Of a Debian package that was unpacked without root, and the libraries that it needs.
    expect(await run('exec', 'guest', '--', 'jq', '-nc', '{a: 1}')).toBe('{"a":1}\n');
    const checks = await doctor();
    const pid = qemuPid(state, 'guest');
    const status = readFileSync(`/proc/${pid}/status`, 'utf8');
    const field = (name: string) => new RegExp(`^${name}:\\s*(.*)$`, 'm').exec(status)?.[1];
    expect(field('Name')).toMatch(/^qemu-system/);
    expect(field('Uid')).toBe(Array(4).fill(NOBODY).join('\t'));
    const none = '0'.repeat(16);
    expect([field('CapPrm'), field('CapEff'), field('CapAmb'), field('CapInh')]).toEqual([none, none, none, none]);
    expect([field('NoNewPrivs'), checks.get('privileges')]).toEqual(['1', 'ok']);
    expect([field('Seccomp'), checks.get('qemu-sandbox')]).toEqual(['2', 'ok']);
    const namespaces = hasNamespaces(nobody);
    if (!namespaces) console.warn('\nUSER NAMESPACES ARE NOT TESTED: this host forbids them.\n');
    expect(checks.get('namespaces')).toBe(namespaces ? 'ok' : 'missing');
    for (const kind of ['user', 'net', 'ipc', 'uts']) {
      const isOwn = readlinkSync(`/proc/${pid}/ns/${kind}`) !== readlinkSync(`/proc/self/ns/${kind}`);
      expect([kind, isOwn]).toEqual([kind, namespaces]);
    }
    expect(statSync(join(state, 'machines/guest')).mode & 0o777).toBe(0o700);
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
    // It can do nothing of itself: not even see that nobody holds its sockets any more.
    process.kill(pid, 'SIGSTOP');
    onTestFinished(() => {
      if (processStart(pid) !== undefined) process.kill(pid, 'SIGKILL');
    });
    await moorage.kill();
    while (processStart(pid) !== undefined) await new Promise((resolve) => setTimeout(resolve, 20));
    await session.close();
    // Ends the edge that was left behind.
    moorage = await moorageUp(join(home, 'project'), { user: nobody });
  });

  test('a start on a host that lacks QEMU says how to install it, and once what plain processes cost', async () => {
    const hide = 'mount --bind /dev/null "$(command -v qemu-system-x86_64)" && exec "$@"';
    const bare = { ...nobody, prefix: ['unshare', '--mount', '--', 'sh', '-c', hide, 'sh', ...nobody.prefix] };
    const router = await moorageUp(join(home, 'bare'), { user: bare });
    const session = await connect(router.url, 'guest');
    const pid = Number(await session.text('do', { action: 'pid' }));
    expect(statSync(`/proc/${pid}`).uid).toBe(NOBODY);
    await session.close();
    expect(await router.stop()).toBe(0);
    const [told = '', summary] = router.output().split('\nMoorage serves');
    expect(told.split('\n')).toEqual([
      'warning: microVMs need what this host lacks: qemu-system-x86_64',
      'This installs it:',
      '',
      expect.stringMatching(/^ {2}sudo apt-get update && sudo apt-get install .*qemu-system-x86/),
      '',
      'Run it, or start with --yes (npm start -- --yes), to have isolation.',
      expect.stringMatching(
        /^warning: NO ISOLATION: servers with runtime "vm" run as plain processes: they see your files/,
      ),
      '',
    ]);
    expect(summary).toMatch(/guest\/mcp {2}plain process on this machine \(no isolation\)/);
  });
});
