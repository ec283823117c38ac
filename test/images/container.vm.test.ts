/** A server out of a container image in a real guest, and Python packages beside it. */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { text } from 'node:stream/consumers';
import { afterAll, beforeAll, describe, expect, inject, test } from 'vitest';
import { defaultCacheDir } from '../../origin/images/cache.ts';
import { ensureUserland } from '../../origin/images/userland.ts';
import { provision } from '../../origin/provision.ts';
import { machineDefinitions, type ProcessDefinition, serverDefinitions } from '../../origin/server.ts';
import type { RunningMachine } from '../../origin/vm/driver.ts';
import { QemuDriver } from '../../origin/vm/qemu.ts';
import { parseConfig } from '../../shared/config.ts';
import { makeImage, savedOf, writeTar } from '../support/oci.ts';

const cacheDir = defaultCacheDir();
const quiet = () => undefined;

/** An MCP server of one tool that says where and as whom it runs: shell, on a root that has nothing of ours. */
const SERVER = `#!/bin/sh
while read -r line; do
  id=\${line##*\\"id\\":}; id=\${id%%[,\\}]*}
  case $line in
    *initialize\\"*) result='{"protocolVersion":"2025-06-18","capabilities":{"tools":{}},"serverInfo":{"name":"shell","version":"1"}}' ;;
    *tools/call*)
      said="$(id -u):$(id -g):$(id -G) pwd=$PWD home=$HOME own=$OWN given=$GIVEN args=$* options=$NODE_OPTIONS"
      said="$said root=$(ls / | tr '\\n' ' ') wrote=$(echo x >mine && stat -c %u:%a /srv/work /srv/work/mine /bin/suid | tr '\\n' ' ')"
      result="{\\"content\\":[{\\"type\\":\\"text\\",\\"text\\":\\"$said\\"}]}" ;;
    *) continue ;;
  esac
  printf '{"jsonrpc":"2.0","id":%s,"result":%s}\\n' "$id" "$result"
done
`;

let folder: string;
let machine: RunningMachine | undefined;
let shellIn: (script: string) => Promise<string>;
let start: (
  args: readonly string[],
) => Promise<{ ask: (message: object) => Promise<Record<string, unknown>>; end: () => void }>;

beforeAll(async () => {
  if (!inject('guests')) return;
  folder = mkdtempSync(join(tmpdir(), 'moorage-container-'));
  const { busybox } = await ensureUserland(cacheDir, quiet);
  const applets = ['sh', 'id', 'ls', 'tr', 'stat'].map((name) => {
    return { name: `bin/${name}`, type: 'symlink' as const, linkname: 'busybox', content: '' };
  });
  const image = await makeImage({
    layers: [
      {
        members: [
          { name: 'bin/busybox', mode: 0o755, content: readFileSync(busybox) },
          ...applets,
          { name: 'bin/suid', mode: 0o4755, uid: 7, content: 'x' },
          { name: 'etc/passwd', content: 'app:x:1000:1001::/home/app:/bin/sh\n' },
          { name: 'etc/group', content: 'audio:x:29:app\n' },
          { name: 'removed', content: 'x' },
        ],
      },
      {
        packed: 'zstd',
        members: [
          { name: '.wh.removed', content: '' },
          { name: 'opt/serve', mode: 0o755, content: SERVER },
          { name: 'srv/work/', mode: 0o700, uid: 1000, gid: 1001 },
        ],
      },
    ],
    config: {
      Entrypoint: ['serve', 'fixed'],
      Cmd: ['default'],
      Env: ['PATH=/bin:/opt', 'OWN=image', 'GIVEN=image'],
      User: 'app',
      WorkingDir: '/srv/work',
    },
  });
  await writeTar(join(folder, 'saved.tar'), savedOf(image));
  const server = { image: 'oci:./saved.tar', env: { GIVEN: 'entry' } };
  const [definition] = machineDefinitions(
    serverDefinitions(parseConfig(JSON.stringify({ mcpServers: { shell: server } }))),
  );
  if (definition === undefined) throw new Error('no machine');
  const { image: files, processOf } = await provision(definition, { cacheDir, configDir: folder }, quiet);
  const sizes = { memoryMiB: 256, cpus: 1, diskMiB: 256 };
  const driver = new QemuDriver({ cacheDir });
  const booted = await driver.boot(
    { key: 'shell', dir: join(folder, 'm'), image: files, hostname: 'shell', ...sizes },
    quiet,
  );
  machine = booted;
  shellIn = async (script) => {
    const spec = await processOf(definition.servers[0] as ProcessDefinition, ['sh', '-c', script]);
    const child = await booted.spawn({ ...spec, terminal: { columns: 80, rows: 24 } });
    child.stderr.resume();
    return await text(child.stdout);
  };
  start = async (args) => {
    const [own] = definition.servers;
    const child = await booted.spawn(await processOf({ ...own, entry: { ...own?.entry, args } } as ProcessDefinition));
    child.stderr.resume();
    const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
    return {
      ask: async (message) => {
        child.stdin.write(`${JSON.stringify({ jsonrpc: '2.0', id: 1, ...message })}\n`);
        return JSON.parse((await lines.next()).value as string) as Record<string, unknown>;
      },
      end: () => child.kill('SIGKILL'),
    };
  };
});

afterAll(async () => {
  machine?.kill();
  await machine?.gone;
  if (folder !== undefined) rmSync(folder, { recursive: true, force: true });
});

describe.runIf(inject('guests'))('a container image in a machine', () => {
  test('runs its entrypoint as its user, in its folder, with its environment, on its own root', async () => {
    const server = await start([]);
    const initialize = { protocolVersion: '2025-06-18', capabilities: {}, clientInfo: { name: 't', version: '1' } };
    expect(await server.ask({ method: 'initialize', params: initialize })).toMatchObject({
      result: { serverInfo: { name: 'shell' } },
    });
    const { result } = await server.ask({ method: 'tools/call', params: { name: 'where', arguments: {} } });
    const [content] = (result as { content: { text: string }[] }).content;
    expect(content?.text).toBe(
      '1000:1001:1001 29 pwd=/srv/work home=/home/app own=image given=entry args=fixed default options= ' +
        'root=bin dev etc opt proc run srv sys tmp  wrote=1000:700 1000:644 7:4755 ',
    );
    server.end();
  });

  test('takes arguments in place of its own', async () => {
    const server = await start(['other']);
    const { result } = await server.ask({ method: 'tools/call', params: { name: 'where', arguments: {} } });
    expect(JSON.stringify(result)).toContain('args=fixed other ');
    server.end();
  });

  test('is where a terminal in the machine leads, as its user', async () => {
    const script =
      'test -t 0 && id -u; pwd; echo $OWN; ls -d /removed /srv; read -r line </etc/resolv.conf; echo $line';
    expect(await shellIn(script)).toMatch(/^1000\r\n\/srv\/work\r\nimage\r\n.*\/srv\r\nnameserver 127\.0\.0\.1\r\n$/s);
  });
});
