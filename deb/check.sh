#!/usr/bin/env bash
# Installs a package in a new Debian, has it answer, and removes it. usage, as root: deb/check.sh FILE
# SUITE and MIRROR say which Debian. lintian looks at the file first.
set -euo pipefail
package=$(realpath "$1")
cd "$(dirname "$0")/.."
root=$PWD/build/deb/root
lintian --fail-on error,warning "$package"
rm -rf "$root"
debootstrap --variant=minbase --include=python3,systemd,procps,zlib1g,libstdc++6 \
    "${SUITE:-bookworm}" "$root" "${MIRROR:-http://deb.debian.org/debian}" > build/deb/debootstrap.log
mount -t proc proc "$root/proc"
trap 'umount "$root/proc"' EXIT
cp "$package" tests/installed.sh docs/cat.png "$root/mnt/"
inside() { chroot "$root" "$@"; }
inside dpkg -i "/mnt/$(basename "$package")"
for unit in delen-daemon.service sockets.target.wants/delen.socket; do
    find "$root/etc/systemd/system" "$root/lib/systemd/system" -path "*$unit" | grep -q .
done
systemd-analyze verify --root="$root" delen-daemon.service delen.socket
chroot --userspec=delen:delen "$root" /mnt/installed.sh /usr/bin /mnt/cat.png
if inside delen-daemon install 2> "$root/mnt/said"; then exit 1; fi
grep -q 'a package has installed' "$root/mnt/said"
inside dpkg --purge delen
left=$(find "$root/etc" "$root/usr" "$root/lib/systemd" "$root/var/lib/delen" "$root/run" -name '*delen*' 2> /dev/null || true)
test -z "$left" || { echo "left behind: $left" >&2; exit 1; }
echo "$(basename "$package"): installed, answered, removed"
