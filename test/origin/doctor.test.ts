/** What the doctor says of hosts that lack one thing each. */
import { mkdirSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { report } from '../../cli/doctor.ts';
import { checksOf, type HostFacts, isFit, type Wanted } from '../../origin/doctor/checks.ts';
import { hostFacts } from '../../origin/doctor/facts.ts';

const good: HostFacts = {
  platform: 'linux x64',
  nodeVersion: 'v24.1.0',
  missingTools: [],
  installCommand: 'sudo apt-get install …',
  qemuVersion: 'QEMU emulator version 10.0.2',
  qemuSandbox: true,
  accelerator: { accelerator: 'kvm', reason: 'KVM boots the guest kernel' },
  jail: {
    isRoot: true,
    hasUsers: true,
    setpriv: '/usr/bin/setpriv',
    unshare: '/usr/bin/unshare',
    kvm: { mode: 0o660, gid: 108 },
  },
  cgroups: 2,
  ptraceScope: 1,
  memoryMiB: 16_000,
  freeMemoryMiB: 12_000,
  freeStateMiB: 50_000,
  freeCacheMiB: 50_000,
  hasImages: false,
  reflink: true,
  stateMode: 0o40700,
  cloudflared: 'cloudflared version 2026.1.0',
};
const wanted: Wanted = { machines: true, largestMachineMiB: 512, disksMiB: 4096, budgetMiB: 12_000 };

const missing = (facts: Partial<HostFacts>, wants: Partial<Wanted> = {}) =>
  checksOf({ ...good, ...facts }, { ...wanted, ...wants })
    .filter(({ state }) => state === 'missing')
    .map(({ id, needed }) => [id, needed]);

test('a host with everything lacks nothing', () => expect(missing({})).toEqual([]));

test.each<[string, Partial<HostFacts>, string, boolean]>([
  ['no QEMU', { missingTools: ['qemu-system-x86_64'], qemuVersion: undefined }, 'tools', true],
  ['a QEMU without seccomp', { qemuSandbox: 'sandbox support is not enabled' }, 'qemu-sandbox', true],
  ['an old Node', { nodeVersion: 'v18.0.0' }, 'node', true],
  ['no room for images', { freeCacheMiB: 100 }, 'image-room', true],
  ['no KVM', { accelerator: { accelerator: 'tcg', reason: 'no' } }, 'kvm', false],
  ['no control groups', { cgroups: { why: 'EROFS' } }, 'cgroup', false],
  ['no namespaces', { jail: { ...good.jail, unshare: undefined } }, 'namespaces', false],
  ['no root', { jail: { ...good.jail, isRoot: false } }, 'machine-user', false],
  ['a KVM for root alone', { jail: { ...good.jail, kvm: { mode: 0o600, gid: 0 } } }, 'machine-user', false],
  ['a kernel that forbids to read memory', { ptraceScope: 3 }, 'hibernation', false],
  ['no reflinks', { reflink: false }, 'reflink', false],
  ['less room than the disks may take', { freeStateMiB: 1000 }, 'disk-room', false],
  ['an open state folder', { stateMode: 0o40755 }, 'state', false],
  ['no tunnel', { cloudflared: undefined }, 'cloudflared', false],
])('%s is said, and whether it is needed', (_what, facts, id, needed) => {
  expect(missing(facts)).toEqual([[id, needed]]);
  expect(isFit(checksOf({ ...good, ...facts }, wanted))).toBe(!needed);
});

test('a configuration without machines needs no QEMU', () => {
  expect(missing({ missingTools: ['qemu-system-x86_64'], qemuVersion: undefined }, { machines: false })).toEqual([]);
});

test('everything that is missing comes with what to do', () => {
  const bare = { ...good, cgroups: { why: 'x' }, cloudflared: undefined, jail: { ...good.jail, setpriv: undefined } };
  for (const { state, advice } of checksOf(bare, wanted)) expect(advice === undefined).toBe(state === 'ok');
});

test('what could not be tried is not called ok, and fails nothing', () => {
  const checks = checksOf({ ...good, accelerator: undefined, reflink: undefined, freeStateMiB: undefined }, wanted);
  const unknown = checks.filter(({ state }) => state === 'unknown').map(({ id }) => id);
  expect(unknown).toEqual(['kvm', 'disk-room', 'reflink']);
  expect(isFit(checks)).toBe(true);
  expect(report(checks)).toMatch(/^unknown +reflink +nothing can be written .*\n +Name a folder/m);
});

test('this host is looked at without a trace, also where the state folder is not there yet', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'moorage-doctor-'));
  const asked = { stateDir: join(folder, 'no', 'state'), cacheDir: tmpdir() };
  const before = await hostFacts(asked);
  expect(before).toMatchObject({ nodeVersion: process.version, stateMode: undefined, reflink: expect.any(Boolean) });
  expect(readdirSync(folder)).toEqual([]);
  mkdirSync(asked.stateDir, { recursive: true });
  expect((await hostFacts(asked)).reflink).toBe(before.reflink);
  expect(readdirSync(asked.stateDir)).toEqual([]);
  rmSync(folder, { recursive: true });
});
