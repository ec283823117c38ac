/**
 * How a process gets into the root of a container image, which lies at CONTAINER_ROOT of the machine: the machine's own
 * root is needed by its agent. Scripts of the base image; `chroot` comes with the packages of machines that have a container.
 */
import { KEEP_COMPILED_OPTIONS } from '../guest/process.ts';

export const CONTAINER_ROOT = '/container';
/** Debian's package of what `enter` needs. */
export const CONTAINER_PACKAGE = 'coreutils';
/** `enter USER:GROUP GROUPS FOLDER COMMAND…`, with numbers for users and groups. */
export const ENTER = '/opt/moorage/enter';

/** At boot: the container sees the machine's processes, devices, temporary files and names. */
const JOIN = `#!/bin/sh
case $(cat /proc/mounts) in *" ${CONTAINER_ROOT} "*) ;; *) exit 0 ;; esac
mkdir -p /run/moorage
for place in proc sys dev tmp run/moorage opt/moorage opt/mcp; do
  mkdir -p ${CONTAINER_ROOT}/$place
  mount -o rbind /$place ${CONTAINER_ROOT}/$place
done
mkdir -p ${CONTAINER_ROOT}/etc
for file in hosts resolv.conf; do
  [ -e /etc/$file ] || continue
  # An image may hold a link that leads nowhere here.
  [ -L ${CONTAINER_ROOT}/etc/$file ] && rm -f ${CONTAINER_ROOT}/etc/$file
  [ -e ${CONTAINER_ROOT}/etc/$file ] || : >${CONTAINER_ROOT}/etc/$file
  mount -o bind /etc/$file ${CONTAINER_ROOT}/etc/$file
done
`;

/** What is set for Node programs of the machine names files of the machine. */
const ENTER_SCRIPT = `#!/bin/sh
[ "$NODE_OPTIONS" = "${KEEP_COMPILED_OPTIONS}" ] && unset NODE_OPTIONS NODE_COMPILE_CACHE
user=$1 groups=$2 folder=$3
shift 3
exec /usr/sbin/chroot --userspec="$user" --groups="$groups" ${CONTAINER_ROOT} \\
  /opt/moorage/busybox sh /opt/moorage/start "$folder" "$@"
`;

/** Inside: looks for the program itself, since busybox would prefer its own of that name. */
const START = `#!/bin/sh
cd "$1" || exit 126
shift
case $1 in */*) exec "$@" ;; esac
program=$1
shift
IFS=:
for folder in $PATH; do
  [ -f "$folder/$program" ] && [ -x "$folder/$program" ] && exec "$folder/$program" "$@"
done
echo "moorage: the image has no program \\"$program\\" in its PATH ($PATH)" >&2
exit 127
`;

export const CONTAINER_SCRIPTS: Readonly<Record<string, string>> = {
  'opt/moorage/join-container': JOIN,
  'opt/moorage/enter': ENTER_SCRIPT,
  'opt/moorage/start': START,
};
