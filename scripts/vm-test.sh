#!/usr/bin/env bash
# `make vm-test`: boots a machine of Debian 12 with the real systemd and pure cgroup v2, installs faasd's package in it, and runs its units
# (scripts/vm-guest.sh has the checks). The processor is emulated in software, so this needs root but neither KVM nor a privilege beyond
# it, and takes a quarter of an hour. What was seen: docs/vm.md.
#
#   FAASD=target/release/faasd scripts/vm-test.sh
#
# WORK      where the roots and the disk are made (default: a new directory under /var/tmp, removed at the end); roots that are there are
#           used again, so that a second run needs no network
# SECONDS_MAX  when the machine is ended by force (3600)
#
# Nothing is installed on this machine: where there is no emulator, one is unpacked into a root of its own. The machine has no network.
set -euo pipefail
cd "$(dirname "$0")/.."

release=bookworm
executable="$(realpath "${FAASD:-${CARGO_TARGET_DIR:-target}/release/faasd}")"
seconds_max="${SECONDS_MAX:-3600}"
memory=2G
disk=3G

for command in mmdebstrap mke2fs dpkg-deb unshare; do
    command -v "$command" >/dev/null || { echo "no $command here: apt-get install mmdebstrap e2fsprogs dpkg util-linux" >&2; exit 1; }
done
[ "$(id -u)" -eq 0 ] || { echo "not root" >&2; exit 1; }
[ -x "$executable" ] || { echo "no executable at $executable: cargo build --release, or FAASD=…" >&2; exit 1; }

work="${WORK:-$(mktemp -d /var/tmp/faasd-vm.XXXXXX)}"
mkdir -p "$work"
exec {lock}>"$work/lock"
flock --nonblock "$lock" || { echo "another machine runs in $work" >&2; exit 1; }
machine=
end() {
    if [ -n "$machine" ]; then
        kill -KILL "$machine" 2>/dev/null || true
        wait "$machine" 2>/dev/null || true
    fi
    rm -rf --one-file-system "$work/root" "$work/disk"
    [ -n "${WORK:-}" ] || rm -rf --one-file-system "$work"
}
trap end EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# `make_root NAME PACKAGES`: whole, or not there.
make_root() {
    [ -d "$work/$1" ] && return
    rm -rf --one-file-system "$work/$1.new"
    mmdebstrap --quiet --variant=minbase --aptopt='Apt::Install-Recommends "false"' --include="$2" "$release" "$work/$1.new"
    mv "$work/$1.new" "$work/$1"
}
emulator=/
if ! command -v qemu-system-x86_64 >/dev/null; then
    make_root emulator qemu-system-x86,seabios
    emulator="$work/emulator"
fi
make_root base systemd,systemd-sysv,dbus,kmod,udev,ca-certificates,libgcc-s1,procps,python3,nodejs,linux-image-cloud-amd64

# The guest: Debian, this repository's files, the package; and one service more.
root="$work/root"
rm -rf --one-file-system "$root"
cp -a "$work/base" "$root"
mkdir -p "$root/root/faasd"
tar -c Cargo.toml LICENSE config docs examples packaging scripts systemd | tar -x --no-same-owner -C "$root/root/faasd"
cp "$(packaging/deb.sh "$executable" "$work")" "$root/root/faasd.deb"
install -m 0755 "$executable" "$root/root/faasd.executable"
cat >"$root/etc/systemd/system/vm-guest.service" <<'EOT'
[Unit]
Description=Checks of faasd
After=multi-user.target

[Service]
Type=oneshot
Environment=HOME=/root LC_ALL=C.UTF-8
ExecStart=/root/faasd/scripts/vm-guest.sh
ExecStopPost=/usr/bin/systemctl poweroff --no-block
StandardOutput=file:/dev/ttyS1
StandardError=file:/dev/ttyS1

[Install]
WantedBy=default.target
EOT
ln -s /etc/systemd/system/vm-guest.service "$root/etc/systemd/system/multi-user.target.wants/vm-guest.service"
echo vm >"$root/etc/hostname"
echo '/dev/vda / ext4 defaults 0 1' >"$root/etc/fstab"
: >"$root/etc/machine-id"
rm -f "$work/disk"
truncate -s "$disk" "$work/disk"
mke2fs -q -t ext4 -d "$root" "$work/disk"
rm -rf --one-file-system "$root"

# The console is the first serial line, the checks' results the second.
: >"$work/console.log"
: >"$work/checks.log"
# shellcheck disable=SC2054 # Commas within arguments.
arguments=(
    qemu-system-x86_64 -nodefaults -no-user-config -no-reboot -display none -nic none
    -machine q35,accel=tcg -cpu max -smp 2 -m "$memory"
    -kernel base/vmlinuz -initrd base/initrd.img
    -append "root=/dev/vda rw console=ttyS0 panic=-1 systemd.unified_cgroup_hierarchy=1"
    -drive file=disk,format=raw,if=virtio,cache=unsafe
    -device virtio-rng-pci
    -serial file:console.log -serial file:checks.log
)
echo "the machine boots; its console is $work/console.log"
# shellcheck disable=SC2016 # The inner shell's own.
unshare --mount --pid --fork --kill-child bash -c '
    mkdir -p "$1/mnt" && mount --bind "$2" "$1/mnt"
    exec timeout --kill-after=10 "$3" chroot "$1" bash -c "cd /mnt && exec \"\$@\"" - "${@:4}"
' - "$emulator" "$work" "$seconds_max" "${arguments[@]}" &
machine=$!
tail -n +1 -f --pid="$machine" "$work/checks.log" &
code=0 hung=0 looks=0
while kill -0 "$machine" 2>/dev/null; do
    # Some minutes after its result it must have powered off.
    if grep -q '^vm result: ' "$work/checks.log" && [ $((looks += 1)) -gt 90 ]; then
        hung=1
        kill -KILL "$machine"
    fi
    sleep 2
done
wait "$machine" || code=$?
machine=
wait
[ "$hung" -eq 0 ] || { echo "the machine did not power off; the end of its console:"; tail -n 30 "$work/console.log"; exit 1; } >&2

if ! grep -q '^vm result: ' "$work/checks.log"; then
    echo "the machine ended with code $code and no result; the end of its console:" >&2
    tail -n 30 "$work/console.log" >&2
    exit 1
fi
! grep -q '^vm .* FAILED' "$work/checks.log"
