/** The program `moorage-hold` of the guest: a hold for a time, or for as long as a command runs (at most that time). */
import { HOLDS_FOLDER } from './holds.ts';

export const MOORAGE_HOLD = `#!/bin/sh
usage() {
  echo "usage: moorage-hold DURATION [-- COMMAND ...]   (DURATION: 90s, 10m, 2h)
Keeps this machine awake for DURATION, or while COMMAND runs and at most for DURATION." >&2
  exit 2
}
case $1 in
  *[0-9]s) seconds=\${1%s} ;;
  *[0-9]m) seconds=\${1%m}; unit=60 ;;
  *[0-9]h) seconds=\${1%h}; unit=3600 ;;
  *) usage ;;
esac
case $seconds in *[!0-9]*) usage ;; esac
seconds=$((seconds * \${unit:-1}))
shift
[ "$1" = -- ] && shift
read -r up _ </proc/uptime
mkdir -p ${HOLDS_FOLDER}
file=${HOLDS_FOLDER}/$$
owner=$$
[ $# -eq 0 ] && owner=0
# Written beside and moved: a hold is never seen half.
echo "$((\${up%.*} + seconds)) $owner" >"${HOLDS_FOLDER}.$$"
mv "${HOLDS_FOLDER}.$$" "$file"
[ $# -eq 0 ] && exit 0
"$@"
status=$?
rm -f "$file"
exit $status
`;
