/** People in a real machine: terminals, commands and files, through the control socket and the command line. */
import { spawn } from 'node:child_process';
import {
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import { setTimeout as sleep } from 'node:timers/promises';
import { pack } from 'tar-stream';
import { afterAll, beforeAll, describe, expect, inject, test } from 'vitest';
import { controlOf } from '../../cli/control.ts';
import { visit } from '../../cli/visit.ts';
import { type Control, startControl } from '../../origin/control/control.ts';
import { holdRoutes } from '../../origin/control/holds.ts';
import { shellSocket } from '../../origin/control/shell.ts';
import { sshSocket } from '../../origin/control/ssh.ts';
import { Holds } from '../../origin/holds.ts';
import { defaultCacheDir } from '../../origin/images/cache.ts';
import { openLog } from '../../origin/log.ts';
import { Machines } from '../../origin/machines.ts';
import { machineDefinitions, serverDefinitions } from '../../origin/server.ts';
import { Entrances } from '../../origin/shell/entrances.ts';
import { makeKeyPair } from '../../origin/shell/host-key.ts';
import { SHELL_PATH, SSH_PATH } from '../../origin/shell/protocol.ts';
import type { RunningSsh } from '../../origin/shell/ssh-server.ts';
import { Visits } from '../../origin/shell/visits.ts';
import { QemuDriver } from '../../origin/vm/qemu.ts';
import { openSsh } from '../../router/ssh.ts';
import { parseConfig } from '../../shared/config.ts';

const ROOT = new URL('../..', import.meta.url).pathname;
const dir = mkdtempSync(join(tmpdir(), 'moorage-shell-'));
const lines: string[] = [];
const log = openLog(join(dir, 'logs'), (line) => lines.push(line));
const config = parseConfig(
  JSON.stringify({
    mcpServers: {
      notes: {
        command: 'cat',
        env: { GREETING: 'hello' },
        limits: { memory: '512M' },
        sleep: { pauseAfter: '1s', hibernateAfter: '2s' },
      },
      plain: { command: 'cat', runtime: 'process' },
      far: { url: 'http://127.0.0.1:9/mcp' },
    },
  }),
);
const client = controlOf({ config: 'unused', state: dir });
let machines: Machines;
let control: Control;
let ssh: RunningSsh;

async function start(): Promise<void> {
  const cacheDir = defaultCacheDir();
  const servers = serverDefinitions(config);
  const definitions = machineDefinitions(servers);
  const driver = new QemuDriver({ cacheDir });
  machines = new Machines({ definitions, stateDir: dir, cacheDir, configDir: dir, log, driver });
  const named = new Map(servers.map((server) => [server.name, server]));
  const visits = new Visits({ machines, servers: named });
  ssh = await openSsh({ listen: '127.0.0.1:0', teams: {} }, { stateDir: dir, configDir: dir, visits, log });
  const sockets = { [SHELL_PATH]: shellSocket(visits), [SSH_PATH]: sshSocket(ssh) };
  const routes = {
    '/v1/holds': holdRoutes(new Holds({ machines, entrances: new Entrances({ machines, servers: named }) })),
  };
  control = await startControl({ socket: join(dir, 'control.sock'), routes, sockets, log });
}

async function stop(): Promise<void> {
  await control?.close();
  await ssh?.close();
  await machines?.close();
}

beforeAll(async () => {
  if (inject('guests')) await start();
});
afterAll(async () => {
  await stop();
  rmSync(dir, { recursive: true });
});

interface Ran {
  readonly code: number | null;
  readonly out: string;
  readonly err: string;
}

/** The command line as its user runs it. */
function moorage(args: readonly string[], input: string | Buffer = ''): Promise<Ran> {
  const [name = '', ...rest] = args;
  return run(process.execPath, ['cli/moorage.ts', name, '--state', dir, ...rest], input);
}

async function run(command: string, args: readonly string[], input: string | Buffer = ''): Promise<Ran> {
  const child = spawn(command, args, { cwd: ROOT, stdio: 'pipe' });
  child.stdin.on('error', () => undefined);
  child.stdin.end(input);
  const [out, err, code] = await Promise.all([
    child.stdout.toArray(),
    child.stderr.toArray(),
    new Promise<number | null>((resolve) => child.once('close', resolve)),
  ]);
  return { code, out: Buffer.concat(out).toString(), err: Buffer.concat(err).toString() };
}

/** A terminal in the machine; `until` resolves when it has shown a text. */
async function terminal(argv?: string[]) {
  const stdin = new PassThrough();
  const stdout = new PassThrough();
  let shown = '';
  let check = () => {};
  stdout.on('data', (data: Buffer) => {
    shown += data.toString();
    check();
  });
  const wish = { server: 'notes', ...(argv ? { argv } : {}), env: {}, terminal: { columns: 91, rows: 33 } };
  const there = await visit(client, wish, { stdin, stdout, stderr: new PassThrough() });
  const until = (text: string) =>
    new Promise<void>((resolve) => {
      check = () => shown.includes(text) && resolve();
      check();
    });
  return { there, stdin, until };
}

describe.runIf(inject('guests'))('in a machine', () => {
  test('a command has its input, output, error and exit code to itself, and the environment of the server', async () => {
    const script = 'echo "$GREETING $(cat) in $(pwd)"; echo trouble >&2; exit 7';
    const ran = await moorage(['exec', 'notes', '--', 'sh', '-c', script], 'you');
    expect(ran).toEqual({ code: 7, out: 'hello you in /data/notes\n', err: 'trouble\n' });
  });

  test('bytes pass unchanged, as many as there are', async () => {
    const bytes = Buffer.alloc(3_000_000, 'moorage\n');
    const { out } = await moorage(['exec', 'notes', '--', 'cat'], bytes);
    expect(out).toBe(bytes.toString());
  });

  test('a program that is not there, a server that is not, and one without a machine are said so', async () => {
    expect(await moorage(['exec', 'notes', '--', 'no-such'])).toMatchObject({
      code: 1,
      err: expect.stringContaining('ENOENT'),
    });
    expect(await moorage(['exec', 'nots', '--', 'true'])).toMatchObject({
      code: 1,
      err: expect.stringContaining('"nots"'),
    });
    for (const server of ['plain', 'far']) {
      expect((await moorage(['exec', server, '--', 'true'])).err).toContain(`"${server}" has no machine here`);
    }
  });

  test('a shell has a terminal of the size of this one, ends with its exit code, and leaves this one as it was', async () => {
    const shell = `${process.execPath} cli/moorage.ts shell notes --state ${dir}`;
    const script = `stty rows 30 cols 100; ${shell}; code=$?; stty -a; exit $code`;
    const { code, out } = await run('script', ['-qec', script, '/dev/null'], 'tty; stty size; echo "$TERM"; exit 9\n');
    expect(out).toMatch(/\/dev\/pts\/\d+\r+\n30 100\r+\n/);
    expect(code).toBe(9);
    expect(out.split('/dev/pts/').at(-1)).toMatch(/(?<!-)icanon[\s\S]*(?<!-)echo /);
  });

  test('a terminal is resized, takes Ctrl-C, keeps its machine awake, and is hung up with its connection', async () => {
    const { there, stdin, until } = await terminal();
    stdin.write('stty size\n');
    await until('33 91\r\n');
    there.tell({ type: 'resize', columns: 120, rows: 40 });
    stdin.write('stty size; sh -c "echo begun; exec sleep 1000"\n');
    await until('40 120\r\nbegun\r\n');
    stdin.write('\x03');
    stdin.write('echo after $?\n');
    await until('after 130');
    stdin.write(`sh -c "trap 'echo hung up >/root/hup; exit' HUP; echo trapped; while true; do sleep 0.1; done"\n`);
    await until('\r\ntrapped');
    expect(machines.states()).toContainEqual(expect.objectContaining({ key: 'notes', state: 'running' }));
    there.leave();
    await expect(there.exited).rejects.toMatchObject({ code: 'machine_failed' });
    const look = 'while ! cat /root/hup 2>/dev/null; do sleep 0.1; done';
    expect(await moorage(['exec', 'notes', '--', 'sh', '-c', look])).toMatchObject({ code: 0, out: 'hung up\n' });
  });

  test('a signal reaches the command, and its end is told', async () => {
    const { there, until } = await terminal(['sh', '-c', 'echo waits; sleep 1000']);
    await until('waits');
    there.tell({ type: 'signal', signal: 'SIGTERM' });
    expect(await there.exited).toEqual({ code: null, signal: 'SIGTERM' });
  });

  test('files and folders are copied in and out, with their modes', async () => {
    const from = join(dir, 'from');
    mkdirSync(join(from, 'sub'), { recursive: true });
    writeFileSync(join(from, 'run.sh'), '#!/bin/sh\necho ran\n', { mode: 0o755 });
    writeFileSync(join(from, 'sub', 'big'), Buffer.alloc(1_000_000, 'moorage\n'), { mode: 0o640 });
    symlinkSync('sub/big', join(from, 'link'));
    expect(await moorage(['cp', from, 'notes:/root'])).toEqual({ code: 0, out: '', err: '' });
    const look = 'cd /root/from && ./run.sh && stat -c %a sub/big && readlink link && ln -s /etc out';
    expect(await moorage(['exec', 'notes', '--', 'sh', '-c', look])).toMatchObject({ out: 'ran\n640\nsub/big\n' });
    const said = await moorage(['cp', 'notes:/root/from', join(dir, 'back')]);
    expect(said).toMatchObject({ code: 0, err: expect.stringContaining('from/out') });
    for (const path of ['run.sh', 'sub/big', 'link']) {
      expect(readFileSync(join(dir, 'back', path)).equals(readFileSync(join(from, path)))).toBe(true);
      expect(lstatSync(join(dir, 'back', path)).mode).toBe(lstatSync(join(from, path)).mode);
    }
    expect(await moorage(['cp', 'notes:/nothing', dir])).toMatchObject({
      code: 1,
      err: expect.stringContaining('No such'),
    });
  });

  test('a machine that sends something else than it was asked for writes nothing here', async () => {
    const evil = pack();
    evil.entry({ name: 'from/../../evil' }, 'evil');
    evil.finalize();
    const sh = '/usr/local/bin/sh';
    const script = `cat >/root/evil; printf '#!/bin/busybox sh\ncat /root/evil' >${sh}; chmod +x ${sh}`;
    const planted = await moorage(['exec', 'notes', '--', 'sh', '-c', script], await buffer(evil));
    expect(planted).toMatchObject({ code: 0 });
    const said = await moorage(['cp', 'notes:/root/from', join(dir, 'victim')]);
    expect(said).toMatchObject({ code: 1, err: expect.stringContaining('outside what was asked for') });
    for (const path of ['evil', 'victim', '../evil']) expect(existsSync(join(dir, path))).toBe(false);
    await moorage(['exec', 'notes', '--', 'rm', sh]);
  });

  test.runIf(inject('ssh'))('OpenSSH enters: a command, a terminal, files, by the port and by the socket', async () => {
    const key = join(dir, 'id');
    const pair = makeKeyPair('ann');
    writeFileSync(key, pair.private, { mode: 0o600 });
    writeFileSync(join(dir, 'authorized_keys'), `servers="not*" ${pair.public}\n`, { mode: 0o600 });
    const known = join(dir, 'known_hosts');
    writeFileSync(known, `moorage ${readFileSync(join(dir, 'ssh_host_ed25519_key.pub'), 'utf8')}`);
    const settings = ['BatchMode=yes', 'IdentitiesOnly=yes', 'HostKeyAlias=moorage', `UserKnownHostsFile=${known}`];
    const common = ['-F', '/dev/null', '-i', key, ...settings.flatMap((setting) => ['-o', setting])];
    const by = { port: ['-p', String(ssh.port)], scp: ['-P', String(ssh.port)] };
    const at = 'notes@127.0.0.1';

    const ran = await run('ssh', [...common, ...by.port, at, 'cat; echo trouble >&2; exit 5'], 'from here\n');
    expect(ran).toMatchObject({ code: 5, out: 'from here\n', err: expect.stringContaining('trouble') });
    const shown = await run('ssh', [...common, ...by.port, '-tt', at], 'tty; echo "$GREETING"; exit 9\n');
    expect(shown.out).toMatch(/\/dev\/pts\/\d+\r\nhello\r\n/);
    expect(shown.code).toBe(9);
    const file = join(dir, 'sent');
    writeFileSync(file, 'by sftp\n', { mode: 0o640 });
    expect(await run('scp', [...common, ...by.scp, '-p', file, `${at}:/root/sent`])).toMatchObject({ code: 0 });
    expect(await run('scp', [...common, ...by.scp, '-p', `${at}:/root/sent`, `${file}-back`])).toMatchObject({
      code: 0,
    });
    expect(readFileSync(`${file}-back`, 'utf8')).toBe('by sftp\n');
    expect(lstatSync(`${file}-back`).mode & 0o777).toBe(0o640);
    const proxy = `ProxyCommand=${process.execPath} cli/moorage.ts ssh-proxy --state ${dir}`;
    expect(await run('ssh', [...common, '-o', proxy, at, 'hostname'])).toMatchObject({ code: 0, out: 'notes\n' });
    const refused = await run('ssh', [...common, ...by.port, 'plain@127.0.0.1', 'true']);
    expect(refused).toMatchObject({ code: 255, err: expect.stringContaining('Permission denied (publickey)') });
  });

  test('a machine is held for a time, and sleeps when it is let go', async () => {
    const held = await moorage(['hold', 'notes', '--for', '2h']);
    expect(held).toMatchObject({ code: 0, out: expect.stringContaining('Machine "notes" stays awake until ') });
    const { out } = await moorage(['hold', '--json']);
    expect(JSON.parse(out)).toEqual([{ machine: 'notes', until: expect.any(String) }]);
    expect((await moorage(['hold', 'far'])).err).toContain('"far" has no machine here');
    expect((await moorage(['hold', 'notes', '--for', '8d'])).err).toContain('seven days');
    expect(machines.states()[0]).toMatchObject({ key: 'notes', state: 'running' });
    expect(await moorage(['hold', '--rm', 'notes'])).toMatchObject({ code: 0, out: '' });
    while (!machines.states().some(({ state }) => state === 'hibernated')) await sleep(50);
    expect((await moorage(['hold', '--rm', 'notes'])).err).toContain('is not held');
  });

  test('what npm installs for all is there after a hibernation, and after a boot', async () => {
    const tool = join(dir, 'tool');
    mkdirSync(tool);
    writeFileSync(join(tool, 'package.json'), JSON.stringify({ name: 'tool', version: '1.0.0', bin: 'cli.js' }));
    writeFileSync(join(tool, 'cli.js'), '#!/usr/bin/env node\nconsole.log("installed");\n');
    await moorage(['cp', tool, 'notes:/root/tool']);
    expect(await moorage(['exec', 'notes', '--', 'npm', 'install', '-g', '/root/tool'])).toMatchObject({ code: 0 });
    while (!machines.states().some(({ state }) => state === 'hibernated')) await sleep(50);
    expect(await moorage(['exec', 'notes', '--', 'tool'])).toEqual({ code: 0, out: 'installed\n', err: '' });
    await stop();
    // Another life of the agent that does not recall it boots it from its disk.
    await start();
    expect(await moorage(['exec', 'notes', '--', 'tool'])).toEqual({ code: 0, out: 'installed\n', err: '' });
  });
});
