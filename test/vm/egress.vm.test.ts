/** The way out of a real machine: what is listed is reached, nothing else resolves or connects, sleep resets connections. */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, renameSync, rmSync } from 'node:fs';
import { createServer as createHttpServer } from 'node:http';
import { type AddressInfo, createServer, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface, type Interface } from 'node:readline';
import { afterAll, beforeAll, describe, expect, inject, test } from 'vitest';
import { Gateway } from '../../origin/egress/gateway.ts';
import { defaultCacheDir } from '../../origin/images/cache.ts';
import { ensureMachineImage } from '../../origin/images/machine-image.ts';
import type { MachineSpec, RunningMachine, ServerProcess } from '../../origin/vm/driver.ts';
import { QemuDriver } from '../../origin/vm/qemu.ts';
import type { QemuMachine } from '../../origin/vm/qemu-machine.ts';
import { parseEgressRule } from '../../shared/config/egress.ts';

/** A program that connects when it is told to ("host port"), sends what else it is told, and says what happens. */
const PROGRAM = `
let socket;
require('node:readline').createInterface({ input: process.stdin }).on('line', (line) => {
  const to = /^connect (\\S+) (\\d+)$/.exec(line);
  if (!to) return socket.write(line);
  socket = require('node:net').connect({ host: to[1], port: Number(to[2]) });
  socket.on('connect', () => console.log('connected'));
  socket.on('data', (data) => console.log('got ' + data));
  socket.on('error', (error) => console.log(error.code));
});
`;

const cacheDir = defaultCacheDir();
const quiet = () => undefined;
const lines: string[] = [];
const asked: string[] = [];
let folder: string;
let spec: MachineSpec;
let machine: QemuMachine;
let program: ServerProcess;
let said: Interface;
const servers: Server[] = [];
let web: number;
let echo: number;

const gateway = (...entries: string[]) =>
  new Gateway({
    rules: entries.map(parseEgressRule),
    log: (line) => void lines.push(line),
    resolve: async (name) => {
      asked.push(name);
      return ['127.0.0.1'];
    },
    own: () => [],
  });

const listen = (server: Server) =>
  new Promise<number>((resolve) => {
    servers.push(server);
    server.listen(0, '127.0.0.1', () => resolve((server.address() as AddressInfo).port));
  });

async function output(script: string): Promise<string> {
  const child = await machine.spawn({ argv: ['sh', '-c', `{ ${script}; } 2>&1`], env: {}, cwd: '/data' });
  child.stderr.resume();
  return Buffer.concat(await child.stdout.toArray()).toString();
}

function listenTo(process: ServerProcess): void {
  program = process;
  process.stderr.resume();
  said = createInterface({ input: process.stdout });
  for (const stream of [process.stdin, process.stdout, process.stderr, said]) stream.on('error', quiet);
}

/** Tells the program a line; resolves with what it says next. */
function tell(line: string | undefined): Promise<string> {
  const next = new Promise<string>((resolve) => said.once('line', resolve));
  if (line !== undefined) program.stdin.write(`${line}\n`);
  return next;
}

async function end(one: RunningMachine): Promise<void> {
  one.kill();
  await one.gone;
}

beforeAll(async () => {
  if (!inject('guests')) return;
  web = await listen(createHttpServer((request, answer) => answer.end(`hello ${request.headers.host?.split(':')[0]}`)));
  echo = await listen(createServer((socket) => socket.on('error', quiet).pipe(socket)));
  folder = mkdtempSync(join(tmpdir(), 'moorage-egress-'));
  spec = {
    key: 'egress',
    dir: join(folder, 'egress'),
    image: await ensureMachineImage(cacheDir, quiet),
    memoryMiB: 192,
    cpus: 1,
    diskMiB: 128,
    hostname: 'egress',
    egress: gateway(
      `127.0.0.1:${web}`,
      `app.example:${web}`,
      `*.wild.example:${echo}`,
      `127.0.0.1:${echo}`,
      '10.9.0.0/16:81',
    ),
  };
  machine = await new QemuDriver({ cacheDir }).boot(spec, quiet);
});

afterAll(async () => {
  if (machine) await end(machine);
  for (const server of servers) server.close();
  if (folder !== undefined) rmSync(folder, { recursive: true, force: true });
});

describe.runIf(inject('guests'))('a machine', () => {
  test('reaches what is listed, by address and by name, with programs that know nothing of it', async () => {
    expect(await output(`wget -qO- http://127.0.0.1:${web}/; echo; wget -qO- http://app.example:${web}/`)).toBe(
      'hello 127.0.0.1\nhello app.example',
    );
    expect(asked).toEqual(['app.example']);
    await expect
      .poll(() => lines.join('\n'))
      .toMatch(/connection 1 to 127\.0\.0\.1:\d+ closed: \d+ bytes sent, \d+ received/);
    expect(lines.join('\n')).toMatch(/connection 2 to app\.example:\d+ opened, at 127\.0\.0\.1/);
  });

  test('looks up nothing else, and no lookup leaves it', async () => {
    asked.length = 0;
    const names = ['secret.evil.example', 'wild.example', 'app.example.evil.example'];
    for (const name of names) expect(await output(`nslookup -type=a ${name}`)).toMatch(/NXDOMAIN/);
    // A name under a listed one resolves inside the machine alone, until something connects to it.
    expect(await output('nslookup -type=a exfiltrated.wild.example')).toMatch(/Address: 127\.64\.0\.\d+/);
    expect(asked).toEqual([]);
    for (const name of names)
      expect(lines).toContain(`egress: lookup of ${name} refused: no entry of "egress" lists this name`);
  });

  test('connects to nothing else', async () => {
    const tried = await output(
      `for to in "127.0.0.1 1" "1.1.1.1 443" "169.254.169.254 80" "10.0.2.2 ${web}" "app.example ${echo}"; do nc -w 5 $to </dev/null; echo $?; done`,
    );
    expect(tried.split('\n').filter((line) => /^\d+$/.test(line))).toEqual(['1', '1', '1', '1', '1']);
    // Of a listed network any address is tried, be there somebody or not.
    const trying = await machine.spawn({ argv: ['nc', '10.9.1.2', '81'], env: {}, cwd: '/data' });
    for (const stream of [trying.stdout, trying.stderr]) stream.resume();
    await expect.poll(() => lines.join('\n')).toMatch(/connection \d+ to 10\.9\.1\.2:81 /);
    trying.kill('SIGKILL');
    await trying.exited;
  });

  test('keeps its connections through a pause; after a long sleep they are reset, and new ones work', async () => {
    listenTo(await machine.spawn({ argv: ['node', '-e', PROGRAM], env: {}, cwd: '/data' }));
    expect(await tell(`connect any.wild.example ${echo}`)).toBe('connected');
    expect(await tell('one')).toBe('got one');
    expect(await machine.pause()).toBe(0);
    await machine.resume();
    expect(await tell('two')).toBe('got two');
    await machine.pause();
    await machine.hibernate('carried');
    const reset = tell(undefined);
    await machine.wake();
    expect(await reset).toBe('ECONNRESET');
    expect(await tell(`connect any.wild.example ${echo}`)).toBe('connected');
    expect(await tell('three')).toBe('got three');
  });

  test('that the next agent finds asleep has its connections reset, and lives by the new list', async () => {
    await machine.pause();
    await machine.hibernate('carried');
    execFileSync('cp', ['-a', '--sparse=always', spec.dir, join(folder, 'kept')]);
    await end(machine);
    rmSync(spec.dir, { recursive: true });
    renameSync(join(folder, 'kept'), spec.dir);
    spec = { ...spec, egress: gateway(`other.example:${echo}`, `127.0.0.1:${echo}`) };
    const found = await new QemuDriver({ cacheDir }).recall(spec);
    if (!found) throw new Error('There is no image.');
    machine = found.machine as QemuMachine;
    listenTo(machine.processes().get(program.stream ?? 0) as ServerProcess);
    const reset = tell(undefined);
    await machine.wake();
    expect(await reset).toBe('ECONNRESET');
    expect(await tell(`connect other.example ${echo}`)).toBe('connected');
    expect(await tell('four')).toBe('got four');
    expect(await tell(`connect any.wild.example ${echo}`)).toBe('ENOTFOUND');
  });
});
