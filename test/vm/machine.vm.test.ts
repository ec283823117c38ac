/** Real guests on this host's QEMU, with KVM where it works and software emulation elsewhere. */
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, inject, test } from 'vitest';
import { type AppImage, ensureApp } from '../../origin/images/app.ts';
import { defaultCacheDir } from '../../origin/images/cache.ts';
import { ensureMachineImage } from '../../origin/images/machine-image.ts';
import { ensurePipStage } from '../../origin/images/pip-stage.ts';
import { ensureSystem, PYTHON_PACKAGE, type SystemLayer } from '../../origin/images/system.ts';
import { findCgroups } from '../../origin/vm/cgroup.ts';
import type { MachineImage, MachineSpec, RunningMachine, ServerProcess } from '../../origin/vm/driver.ts';
import { inspectJail, jailOf } from '../../origin/vm/jail.ts';
import { processStart } from '../../origin/vm/pid.ts';
import { QemuDriver } from '../../origin/vm/qemu.ts';
import type { QemuMachine } from '../../origin/vm/qemu-machine.ts';

const cacheDir = defaultCacheDir();
const quiet = () => undefined;
const fixture = (name: string) => new URL(`./fixtures/${name}`, import.meta.url).pathname;

let folder: string;
let image: MachineImage;
let app: AppImage;
let python: string;
let driver: QemuDriver;
let machine: QemuMachine;

function specOf(name: string, withApp = false): MachineSpec {
  const files = withApp && app.path !== undefined ? { ...image, system: python, app: app.path } : image;
  return {
    key: name,
    dir: join(folder, name),
    image: files,
    memoryMiB: 256,
    cpus: 1,
    diskMiB: 256,
    pids: 128,
    hostname: name,
  };
}

const shell = (script: string, on: RunningMachine = machine) =>
  on.spawn({ argv: ['sh', '-c', script], env: { GREETING: 'hello' }, cwd: '/data/work' });

const text = async (stream: Readable) => Buffer.concat(await stream.toArray()).toString();

async function output(script: string, on?: RunningMachine): Promise<string> {
  const child = await shell(script, on);
  child.stdin.end();
  child.stderr.resume();
  return text(child.stdout);
}

/** What a terminal shows, as it comes. */
function listenTo(child: ServerProcess) {
  let shown = '';
  let check: () => void = () => undefined;
  child.stdout.on('data', (data: Buffer) => {
    shown += data.toString();
    check();
  });
  child.stderr.resume();
  return {
    ended: new Promise<void>((resolve) => child.stdout.once('end', resolve)),
    until: (text: string) =>
      new Promise<void>((resolve) => {
        check = () => shown.includes(text) && resolve();
        check();
      }),
  };
}

/** A round trip that overtakes nothing: whatever could have moved before it has moved. */
async function settle(): Promise<void> {
  for (let turn = 0; turn < 3; turn += 1) await output('true');
}

beforeAll(async () => {
  if (!inject('guests')) return;
  folder = mkdtempSync(join(tmpdir(), 'moorage-vm-'));
  const files = join(folder, 'files');
  mkdirSync(files);
  writeFileSync(join(files, 'hello.js'), `console.log('from the image', process.version.split('.')[0]);`);
  const recipe = { servers: { hello: { npm: [], pip: ['tabulate==0.9.0'], files } } };
  let system: SystemLayer;
  [image, system, app] = await Promise.all([
    ensureMachineImage(cacheDir, quiet),
    ensureSystem(cacheDir, [PYTHON_PACKAGE], quiet),
    ensureApp(cacheDir, recipe, quiet),
  ]);
  python = system.path;
  driver = new QemuDriver({ cacheDir });
  machine = await driver.boot(specOf('shared', true), quiet);
});

afterAll(async () => {
  machine?.kill();
  await machine?.gone;
  if (folder !== undefined) rmSync(folder, { recursive: true, force: true });
});

describe.runIf(inject('guests'))('a machine', () => {
  test('has its name, the time, its own writable root, and no network', async () => {
    expect((await output('hostname; echo $GREETING; pwd')).split('\n')).toEqual(['shared', 'hello', '/data/work', '']);
    expect(Math.abs(Number(await output('date +%s')) * 1000 - Date.now())).toBeLessThan(600_000);
    expect(
      await output(
        'echo // changed >>/opt/mcp/hello/files/hello.js; tail -n1 /opt/mcp/hello/files/hello.js; ls /sys/class/net',
      ),
    ).toMatch(/\/\/ changed\nlo\n$/);
  });

  test('keeps what a process has in its environment off its disk and out of all arguments', async () => {
    const TOKEN = `secret-${randomBytes(16).toString('hex')}`;
    const script = 'printf %s "$TOKEN" | wc -c; cat /proc/[0-9]*/cmdline | grep -ac "secret-[0-9a-f]"';
    const child = await machine.spawn({ argv: ['sh', '-c', script], env: { TOKEN }, cwd: '/data/work' });
    child.stderr.resume();
    expect(await text(child.stdout)).toBe(`${TOKEN.length}\n0\n`);
    await machine.sync();
    expect(readFileSync(join(folder, 'shared', 'disk.ext4')).includes(TOKEN)).toBe(false);
  });

  test('runs what the application image brings', async () => {
    expect(await output('node /opt/mcp/hello/files/hello.js')).toMatch(/^from the image v\d+\n$/);
  });

  test('runs Python packages in an environment of their own, with the Python of the distribution', async () => {
    const argv = await app.resolveScript('hello', { package: 'tabulate', name: 'tabulate' });
    expect(await output(`printf 'a 1\\n' | ${argv.join(' ')} -f tsv`)).toBe('a\t1\n');
    const said = await output(`${argv[0]} -c 'import sys, ssl, sqlite3, tabulate as t; print(sys.prefix, t.__file__)'`);
    expect(said).toMatch(
      /^\/opt\/mcp\/hello\/python \/opt\/mcp\/hello\/python\/lib\/python3\.\d+\/site-packages\/tabulate/,
    );
    const sources = ensurePipStage(cacheDir, ['docopt==0.6.2'], quiet);
    await expect(sources).rejects.toMatchObject({ message: expect.stringContaining('docopt==0.6.2 has no wheel') });
  });

  test('echoes 5 MB intact, and a reader who waits makes the writer wait', async () => {
    const data = randomBytes(5 * 1024 * 1024);
    const child = await shell('cat');
    let written = false;
    child.stdin.end(data, () => {
      written = true;
    });
    await settle();
    expect(written).toBe(false);
    const hash = createHash('sha256');
    for await (const chunk of child.stdout) hash.update(chunk as Buffer);
    expect(hash.digest('hex')).toBe(createHash('sha256').update(data).digest('hex'));
    expect(await child.exited).toEqual({ code: 0, signal: null });
  });

  test('keeps the output of 20 processes apart', async () => {
    const run = async (id: number) => {
      const child = await shell(`read word; for i in $(seq 200); do echo "${id} $word $i"; done`);
      child.stdin.end(`word${id}\n`);
      return text(child.stdout);
    };
    const outputs = await Promise.all(Array.from({ length: 20 }, (_, id) => run(id)));
    for (const [id, lines] of outputs.entries()) {
      expect(lines).toBe(Array.from({ length: 200 }, (_, i) => `${id} word${id} ${i + 1}\n`).join(''));
    }
  });

  test('keeps standard error apart', async () => {
    const child = await shell('echo out; echo err >&2');
    expect(await Promise.all([text(child.stdout), text(child.stderr)])).toEqual(['out\n', 'err\n']);
  });

  test.each([0, 1, 77])('reports exit code %i', async (code) => {
    const child = await shell(`exit ${code}`);
    expect(await child.exited).toEqual({ code, signal: null });
  });

  test('delivers signals to the whole group and reports them', async () => {
    const child = await shell('sleep 1000 & echo started; wait');
    await new Promise((resolve) => child.stdout.once('data', resolve));
    child.kill();
    expect(await child.exited).toEqual({ code: null, signal: 'SIGTERM' });
    const stubborn = await shell(`trap '' TERM; echo started; while true; do sleep 0.1; done`);
    await new Promise((resolve) => stubborn.stdout.once('data', resolve));
    stubborn.kill('SIGTERM');
    stubborn.kill('SIGKILL');
    expect(await stubborn.exited).toEqual({ code: null, signal: 'SIGKILL' });
    // Its end is told when its leader has ended; the others are still on their way out.
    expect(await output('while pgrep sleep >/dev/null; do :; done; echo none left')).toBe('none left\n');
  });

  test('gives a program a terminal: its size, Ctrl-C, its exit code, the hangup', async () => {
    const terminal = { columns: 91, rows: 33 };
    const child = await machine.spawn({ argv: ['sh'], env: { PS1: '' }, cwd: '/', terminal });
    const heard = listenTo(child);
    child.stdin.write('stty size; tty\n');
    await heard.until('33 91\r\n/dev/pts/');
    child.resize?.({ columns: 120, rows: 40 });
    child.stdin.write('stty size; sh -c "echo begun; exec sleep 1000"\n');
    await heard.until('40 120\r\nbegun\r\n');
    child.stdin.write('\x03');
    child.stdin.write('echo after $?; exit 7\n');
    await heard.until('after 130');
    expect(await child.exited).toEqual({ code: 7, signal: null });
    await heard.ended;

    const left = await machine.spawn({ argv: ['sh'], env: {}, cwd: '/', terminal });
    const lastHeard = listenTo(left);
    left.stdin.write(`sh -c "trap 'echo hung up >/tmp/hup; exit' HUP; echo waits; while true; do sleep 0.1; done"\n`);
    await lastHeard.until('\r\nwaits');
    left.kill('SIGHUP');
    expect(await left.exited).toEqual({ code: null, signal: 'SIGHUP' });
    expect(await output('while ! cat /tmp/hup 2>/dev/null; do sleep 0.1; done')).toBe('hung up\n');
    // Whoever held the terminal has said farewell and is still on its way out.
    const noTerminal = 'until [ "$(cat /proc/sys/kernel/pty/nr)" = 0 ]; do sleep 0.1; done; echo none left';
    expect(await output(noTerminal)).toBe('none left\n');
  });

  test('says why a program does not start', async () => {
    const attempt = machine.spawn({ argv: ['no-such-program'], env: {}, cwd: '/' });
    await expect(attempt).rejects.toMatchObject({ code: 'spawn-failed', message: expect.stringContaining('ENOENT') });
    const huge = machine.spawn({ argv: ['true'], env: { BIG: 'x'.repeat(200_000) }, cwd: '/' });
    await expect(huge).rejects.toMatchObject({ code: 'spawn-failed' });
  });

  test('pauses and goes on', async () => {
    const child = await shell('cat');
    await machine.pause();
    child.stdin.end('later');
    await machine.resume();
    expect(await text(child.stdout)).toBe('later');
  });

  test('a fork bomb fills its share and no more: the machine starts nothing else, and can be told to end it', async () => {
    const bomb = await shell('bomb() { bomb | bomb & }; bomb 2>/dev/null; echo lit; sleep 1000');
    await new Promise((resolve) => bomb.stdout.once('data', resolve));
    const refusal = async (): Promise<string> => {
      for (;;) {
        const child = await shell('true').catch((error: Error) => error);
        if (child instanceof Error) return child.message;
        await child.exited;
      }
    };
    expect(await refusal()).toMatch(/limits\.pids/);
    bomb.kill('SIGKILL');
    await bomb.exited;
    expect(await output('cat /sys/fs/cgroup/servers/pids.max')).toBe('128\n');
  });

  test('its QEMU stands in every wall that this host has', async () => {
    const { pid } = JSON.parse(readFileSync(join(folder, 'shared/qemu.pid'), 'utf8')) as { pid: number };
    const status = readFileSync(`/proc/${pid}/status`, 'utf8');
    const field = (name: string) => new RegExp(`^${name}:\\s*(\\S+)`, 'm').exec(status)?.[1];
    const facts = await inspectJail();
    const { owner } = jailOf(facts, join(folder, 'shared'), machine.accelerator === 'kvm' ? 'kvm' : 'tcg');
    expect(field('Uid')).toBe(String(owner?.uid ?? process.getuid?.()));
    expect([field('Seccomp'), field('CapEff'), field('CapPrm')]).toEqual(['2', '0000000000000000', '0000000000000000']);
    if (facts.setpriv !== undefined) expect(field('NoNewPrivs')).toBe('1');
    for (const kind of ['net', 'ipc', 'uts']) {
      const isOwn = readlinkSync(`/proc/${pid}/ns/${kind}`) !== readlinkSync(`/proc/self/ns/${kind}`);
      expect([kind, isOwn]).toEqual([kind, facts.unshare !== undefined]);
    }
    expect(statSync(join(folder, 'shared')).mode & 0o007).toBe(0);
    if (owner !== undefined) {
      expect(statSync(join(folder, 'shared/disk.ext4')).uid).toBe(owner.uid);
      // What a QEMU that was taken over could replace by a link would be followed by root.
      for (const path of ['shared', 'shared/sleep']) expect(statSync(join(folder, path)).uid).toBe(0);
    }
    const isLimited = readFileSync(`/proc/${pid}/cgroup`, 'utf8').includes('/moorage/shared-');
    expect(isLimited).toBe(!('why' in findCgroups()));
  });

  test('belongs to one owner', async () => {
    await expect(driver.boot(specOf('shared'), quiet)).rejects.toMatchObject({ code: 'machine-busy' });
    const other = new QemuDriver({ cacheDir });
    await expect(other.boot(specOf('shared'), quiet)).rejects.toMatchObject({ code: 'machine-busy' });
  });

  test('keeps what was synced through kill -9, and tells everyone that it is gone', async () => {
    const child: ServerProcess = await shell('cat');
    await output('echo precious >/data/note; echo installed >/root/upper-note');
    await Promise.all([machine.sync(), machine.sync(), machine.sync()]);
    machine.kill();
    expect((await machine.gone).reason).toBe('it was killed');
    expect(await child.exited).toEqual({ code: null, signal: 'SIGKILL' });
    await expect(machine.sync()).rejects.toMatchObject({ code: 'machine-gone' });
    await expect(shell('true')).rejects.toMatchObject({ code: 'machine-gone' });
    machine = await driver.boot(specOf('shared', true), quiet);
    expect(await output('cat /data/note /root/upper-note')).toBe('precious\ninstalled\n');
  });

  test('stops with its file system unmounted, even when paused', async () => {
    const child = await shell('cat');
    await machine.pause();
    await machine.stop();
    expect(await child.exited).toEqual({ code: null, signal: 'SIGTERM' });
    // Superblock at 1024; incompatible features at 96, of which bit 2 asks for a journal recovery.
    const superblock = readFileSync(join(folder, 'shared/disk.ext4')).subarray(1024, 2048);
    expect(superblock.readUInt16LE(56)).toBe(0xef53);
    expect(superblock.readUInt32LE(96) & 4).toBe(0);
    expect(existsSync(join(folder, 'shared/qemu.pid'))).toBe(false);
  });
});

describe.runIf(inject('guests'))('booting', () => {
  test('can be cancelled', async () => {
    const cancel = new AbortController();
    const boot = driver.boot(specOf('cancelled'), () => cancel.abort(), cancel.signal);
    await expect(boot).rejects.toMatchObject({ code: 'boot-aborted' });
    expect(existsSync(join(folder, 'cancelled/qemu.pid'))).toBe(false);
  });

  test('refuses a host name that could carry kernel arguments', async () => {
    const spec = { ...specOf('x'), hostname: 'x init=/bin/sh' };
    await expect(driver.boot(spec, quiet)).rejects.toMatchObject({ code: 'boot-aborted' });
  });

  test('QEMU dies with its agent', async () => {
    const pid = await killedAgent('orphan', 'die');
    while (processStart(pid) !== undefined) await sleep(10);
  });

  test('Ctrl-C is not for QEMU; one that outlived its agent is ended before its disk is used again', async () => {
    const pid = await killedAgent('orphan', 'leave');
    expect(processStart(pid)).toBeDefined();
    const steps: string[] = [];
    const again = await driver.boot(specOf('orphan'), (step) => steps.push(step));
    expect(processStart(pid)).toBeUndefined();
    expect(steps[0]).toMatch(/dead agent/);
    expect(await output('cat /data/note', again)).toBe('kept\n');
    again.kill();
    await again.gone;
  });
});

/** Runs an agent until its machine is up, kills it, and returns the process id of the QEMU it had. */
async function killedAgent(name: string, mode: 'die' | 'leave'): Promise<number> {
  const agent: ChildProcess = spawn(process.execPath, [fixture('agent.ts'), join(folder, name), mode], {
    stdio: ['ignore', 'pipe', 'inherit'],
    detached: true,
  });
  const ended = new Promise<void>((resolve) => agent.once('exit', () => resolve()));
  await Promise.race([new Promise((resolve) => agent.stdout?.once('data', resolve)), ended]);
  const { pid } = JSON.parse(readFileSync(join(folder, name, 'qemu.pid'), 'utf8')) as { pid: number };
  // As Ctrl-C at its terminal does: to all that is in its process group.
  if (mode === 'leave') process.kill(-(agent.pid ?? 0), 'SIGINT');
  else {
    // It can do nothing of itself: not even see that nobody holds its sockets any more.
    process.kill(pid, 'SIGSTOP');
    agent.kill('SIGKILL');
  }
  await ended;
  return pid;
}

test.runIf(inject('guests'))('two processes that build the images at once share one build', async () => {
  const cache = mkdtempSync(join(tmpdir(), 'moorage-cache-'));
  try {
    const build = () => promisify(execFile)(process.execPath, [fixture('build.ts'), cache]);
    const [one, two] = await Promise.all([build(), build()]);
    expect(one.stdout).toBe(two.stdout);
    expect((one.stderr + two.stderr).match(/^packing base image$/gm)).toHaveLength(1);
    const again = await build();
    expect(again).toEqual({ stdout: one.stdout, stderr: '' });
  } finally {
    rmSync(cache, { recursive: true, force: true });
  }
});
