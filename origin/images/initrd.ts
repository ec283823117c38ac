/**
 * The initial RAM disk: busybox, the modules and one script, packed without root by our own cpio writer.
 *
 * The script says that the kernel reached user space (which is also all that the KVM probe wants), loads the modules,
 * joins base, system packages, applications and the machine's disk into one root, and hands over to the base's init.
 * On the machine's disk: `upper` and `work` (overlayfs), `data` (mounted at /data), and the same two in `container` for the
 * root of a container image.
 */
import { readFile, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { digestOf, ensureBuilt, type Progress } from './cache.ts';
import { CONTAINER_ROOT } from './container-scripts.ts';
import { type CpioEntry, writeCpio } from './cpio.ts';
import type { Kernel } from './kernel.ts';
import type { Userland } from './userland.ts';

/** What the guest prints on its console once its kernel runs programs. */
export const ALIVE_MARKER = 'MOORAGE-GUEST-ALIVE';
/** Kernel argument that makes the guest power off right after the marker. */
export const PROBE_ARGUMENT = 'moorage.probe';

const APPLETS = ['sh', 'mount', 'insmod', 'usleep', 'mkdir', 'switch_root', 'reboot'];

const INIT = `#!/bin/sh
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
echo ${ALIVE_MARKER}
read -r arguments </proc/cmdline
case " $arguments " in *" ${PROBE_ARGUMENT} "*) reboot -f ;; esac
for module in /modules/*.ko; do insmod "$module"; done
tries=0
while [ -z "$data" ] || [ -z "$base" ]; do
  for disk in /sys/block/vd*; do
    serial=
    [ -e "$disk/serial" ] && read -r serial <"$disk/serial"
    case "$serial" in
      base) base=/dev/\${disk##*/} ;;
      system) system=/dev/\${disk##*/} ;;
      app) app=/dev/\${disk##*/} ;;
      container) container=/dev/\${disk##*/} ;;
      data) data=/dev/\${disk##*/} ;;
    esac
  done
  tries=$((tries + 1))
  [ $tries -gt 500 ] && { echo "moorage: the machine's disks did not appear"; reboot -f; }
  [ -z "$data" ] && usleep 5000
done
fail() { echo "moorage: cannot mount $1"; reboot -f; }
mount -t erofs -o ro "$base" /base || fail "the base image"
lower=/base
if [ -n "$system" ]; then
  mount -t erofs -o ro "$system" /system || fail "the system image"
  lower=/system:$lower
fi
if [ -n "$app" ]; then
  mount -t erofs -o ro "$app" /app || fail "the application image"
  lower=/app:$lower
fi
mount -t ext4 -o rw,noatime,noinit_itable "$data" /disk || fail "the machine's disk"
[ -d /disk/upper ] || mkdir -p /disk/upper /disk/work /disk/data
mount -t overlay -o "lowerdir=$lower,upperdir=/disk/upper,workdir=/disk/work" root /root || fail "the root"
mount -o bind /disk/data /root/data
if [ -n "$container" ]; then
  mount -t erofs -o ro "$container" /container || fail "the container image"
  mkdir -p /disk/container/upper /disk/container/work /root${CONTAINER_ROOT}
  mount -t overlay -o "lowerdir=/container,upperdir=/disk/container/upper,workdir=/disk/container/work" container /root${CONTAINER_ROOT} ||
    fail "the container's root"
fi
mount -o move /proc /root/proc
mount -o move /sys /root/sys
mount -o move /dev /root/dev
exec switch_root /root /sbin/init
`;

/** Path of the initrd for this kernel and userland. */
export async function ensureInitrd(
  cacheDir: string,
  kernel: Kernel,
  userland: Userland,
  progress: Progress,
): Promise<string> {
  const digest = digestOf({ kind: 'initrd', kernel: kernel.digest, userland: userland.digest, INIT, APPLETS });
  const folder = await ensureBuilt(
    cacheDir,
    'initrd',
    digest,
    async (to) => {
      progress('packing initrd');
      await writeFile(join(to, 'initrd.cpio'), writeCpio(await entries(kernel, userland)));
    },
    progress,
  );
  return join(folder, 'initrd.cpio');
}

async function entries(kernel: Kernel, userland: Userland): Promise<CpioEntry[]> {
  const folders = ['bin', 'modules', 'proc', 'sys', 'dev', 'root', 'base', 'system', 'app', 'container', 'disk'];
  const list: CpioEntry[] = folders.map((path) => ({ type: 'folder', path }));
  list.push({ type: 'file', path: 'init', mode: 0o755, content: Buffer.from(INIT) });
  list.push({ type: 'file', path: 'bin/busybox', mode: 0o755, content: await readFile(userland.busybox) });
  for (const applet of APPLETS) list.push({ type: 'link', path: `bin/${applet}`, target: 'busybox' });
  for (const module of kernel.modules) {
    list.push({ type: 'file', path: `modules/${basename(module)}`, content: await readFile(module) });
  }
  return list;
}
