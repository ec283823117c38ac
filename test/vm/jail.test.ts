/** What stands around a QEMU, decided from what the host lets us do; control groups where this host has them. */
import { spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { confine, findCgroups, limitFiles, membershipsOf, qemuLimits } from '../../origin/vm/cgroup.ts';
import { dropsUser, hasRange, type JailFacts, jailOf } from '../../origin/vm/jail.ts';

const root: JailFacts = {
  isRoot: true,
  hasUsers: true,
  setpriv: '/usr/bin/setpriv',
  unshare: '/usr/bin/unshare',
  kvm: { mode: 0o660, gid: 108 },
};
const user: JailFacts = { ...root, isRoot: false };

test('as root a machine runs as a user that no other machine is, always the same', () => {
  const [a, b, again] = ['/m/a', '/m/b', '/m/a'].map((dir) => jailOf(root, dir, 'tcg'));
  expect(a).toEqual(again);
  expect(a?.owner?.uid).not.toBe(b?.owner?.uid);
  expect(a?.prefix.join(' ')).toBe(
    `/usr/bin/unshare --net --ipc --uts -- /usr/bin/setpriv --no-new-privs --pdeathsig KILL --inh-caps -all --bounding-set -all --reuid ${a?.owner?.uid} --regid ${a?.owner?.gid} --clear-groups --`,
  );
});

test('it keeps the group that may use KVM, and no other; a KVM for root alone keeps it root', () => {
  expect(jailOf(root, '/m', 'kvm').prefix.join(' ')).toContain('--groups 108 --');
  expect(jailOf({ ...root, kvm: { mode: 0o666, gid: 0 } }, '/m', 'kvm').prefix).toContain('--clear-groups');
  const closed = { ...root, kvm: { mode: 0o660, gid: 0 } };
  expect([dropsUser(closed, 'kvm'), dropsUser(closed, 'tcg')]).toEqual([false, true]);
  expect(jailOf(closed, '/m', 'kvm').owner).toBeUndefined();
});

test('without root there are still namespaces, and no new privileges', () => {
  expect(jailOf(user, '/m', 'kvm')).toEqual({
    owner: undefined,
    prefix: [
      ...['/usr/bin/unshare', '--user', '--map-current-user', '--net', '--ipc', '--uts', '--'],
      ...['/usr/bin/setpriv', '--no-new-privs', '--pdeathsig', 'KILL', '--'],
    ],
  });
  expect(jailOf({ ...user, unshare: undefined, setpriv: undefined }, '/m', 'tcg').prefix).toEqual([]);
});

test.each([
  ['         0          0 4294967295\n', true],
  ['         0     100000      65536\n', false],
  ['', false],
])('a user namespace of %j has our users: %j', (map, expected) => expect(hasRange(map)).toBe(expected));

test('the limits of a QEMU are files of either kind of control groups', () => {
  const limits = qemuLimits({ memoryMiB: 512, cpus: 2 }, 'kvm');
  expect(limits).toEqual({ memoryMiB: 704, cpus: 2.5, pids: 130 });
  expect(limitFiles(2, limits)).toContainEqual(['cpu', 'cpu.max', '250000 100000']);
  expect(limitFiles(1, limits)).toContainEqual(['memory', 'memory.limit_in_bytes', String(704 * 1024 * 1024)]);
});

test('where this process belongs is read for each controller', () => {
  expect([...membershipsOf('4:memory:/a\n2:cpu,cpuacct:/b\n0::/c\n')]).toEqual([
    ['memory', '/a'],
    ['cpu', '/b'],
    ['cpuacct', '/b'],
    ['', '/c'],
  ]);
});

/** A hierarchy of version 2, as files: no kernel behind it. */
function fakeV2(path: string): { proc: string; mounted: string } {
  const folder = mkdtempSync(join(tmpdir(), 'moorage-cgroup-'));
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }));
  const mounted = join(folder, 'mounted');
  mkdirSync(join(mounted, path), { recursive: true });
  writeFileSync(join(mounted, 'cgroup.controllers'), 'cpu memory pids');
  writeFileSync(join(folder, 'cgroup'), `0::${path}\n`);
  return { proc: folder, mounted };
}

test('in version 2 the agent steps aside into a group of its own, also when it is there already', () => {
  for (const path of ['/user/app', '/user/app/agent']) {
    const { proc, mounted } = fakeV2(path);
    const own = join(mounted, 'user/app');
    const found = findCgroups(proc, mounted);
    expect(found).toMatchObject({ version: 2, roots: { memory: join(own, 'moorage') } });
    expect(readFileSync(join(own, 'agent/cgroup.procs'), 'utf8')).toBe(String(process.pid));
    expect(readFileSync(join(own, 'cgroup.subtree_control'), 'utf8')).toBe('+memory +pids +cpu');
  }
});

test('where there are none, it is said', () => {
  expect(findCgroups('/no/such/proc')).toHaveProperty('why');
  const { proc } = fakeV2('/');
  expect(findCgroups(proc, '/no/such/mount')).toEqual({ why: expect.stringContaining('none is mounted') });
});

const here = findCgroups();
if ('why' in here) console.warn(`\nCONTROL GROUPS ARE NOT TESTED on this host: ${here.why}\n`);
test.runIf(!('why' in here))('a process in a group is held to its limits, and the group goes with it', async () => {
  if ('why' in here) return;
  const where = { key: 'test', dir: mkdtempSync(join(tmpdir(), 'moorage-cgroup-')) };
  onTestFinished(() => rmSync(where.dir, { recursive: true }));
  const script = 'read go; for i in 1 2 3 4 5 6; do sleep 5 & done';
  const child = spawn('sh', ['-c', script], { stdio: ['pipe', 'pipe', 'pipe'], detached: true });
  const ended = new Promise((resolve) => child.once('close', resolve));
  const remove = confine(here, where, child.pid ?? 0, { memoryMiB: 64, cpus: 1, pids: 4 });
  const membership = readFileSync(`/proc/${child.pid}/cgroup`, 'utf8');
  expect(membership).toMatch(/pids:.*\/moorage\/test-[0-9a-f]{8}$|^0::.*\/moorage\/test-[0-9a-f]{8}$/m);
  child.stdin.end('go\n');
  let complaint = '';
  child.stderr.on('data', (data: Buffer) => (complaint += data.toString()));
  await new Promise((resolve) => child.once('exit', resolve));
  if (child.pid) process.kill(-child.pid, 'SIGKILL');
  await ended;
  expect(complaint).toMatch(/fork/i);
  remove();
});
