#!/usr/bin/env bash
# `make package-test`: makes the Debian package of an executable, installs it into a root made for that, and looks at what is there.
#   FAASD=target/release/faasd scripts/deploy-package.sh
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/deploy-lib.sh
. scripts/deploy-lib.sh

release=bookworm
executable="${FAASD:-${CARGO_TARGET_DIR:-target}/release/faasd}"
work_directory

missing=""
command -v mmdebstrap >/dev/null || missing="no mmdebstrap on this machine"
[ "$(id -u)" -eq 0 ] || missing="not root"
[ -x "$executable" ] || missing="no executable at $executable: cargo build --release, or FAASD=…"
if [ -n "$missing" ]; then
    for name in "is made" "is installed" "has its files" "has its rights" "is configured" "has sound units" "starts nothing unasked" "is updated" "is removed"; do
        ignored "package: $name" "$missing"
    done
    checks_end
    exit
fi

root="$WORK/root"
package=""
is_made() {
    packaging/deb.sh "$executable" "$WORK" >"$WORK/name"
    [ -f "$(cat "$WORK/name")" ]
}
# With a /proc of its own, which is gone with the command.
inside() { unshare --mount --pid --fork --mount-proc="$root/proc" chroot "$root" env DEBIAN_FRONTEND=noninteractive LC_ALL=C "$@"; }
is_installed() {
    mmdebstrap --quiet --variant=apt --include=systemd,ca-certificates,libgcc-s1,python3 "$release" "$root"
    cp "$package" "$root/tmp/faasd.deb"
    # Without a network by now: all it needs is there.
    inside dpkg -i /tmp/faasd.deb
    # shellcheck disable=SC2016 # dpkg's own variable
    inside dpkg-query -W -f '${Status}\n' faasd | grep -qx 'install ok installed'
}
has_its_files() {
    local file
    for file in usr/bin/faasd usr/lib/systemd/system/faasd.service usr/lib/systemd/system/faasd-controller.service \
        usr/lib/systemd/system/faasd-worker.service usr/lib/sysusers.d/faasd.conf usr/lib/tmpfiles.d/faasd.conf \
        usr/lib/sysctl.d/60-faasd.conf etc/faasd/faasd.toml etc/faasd/environment usr/share/doc/faasd/operations.md; do
        [ -f "$root/$file" ] || { echo "no $file"; return 1; }
    done
    inside dpkg --verify faasd
    inside getent group faasd
}
has_its_rights() {
    diff <(inside stat -c '%n %a %U:%G' /usr/bin/faasd /etc/faasd /etc/faasd/faasd.toml /etc/faasd/environment /run/faasd) - <<'EOT'
/usr/bin/faasd 755 root:root
/etc/faasd 750 root:faasd
/etc/faasd/faasd.toml 644 root:root
/etc/faasd/environment 600 root:root
/run/faasd 700 root:root
EOT
}
is_configured() {
    inside faasd --version
    inside faasd config check --config /etc/faasd/faasd.toml
}
has_sound_units() {
    local said
    said="$(inside systemd-analyze verify --man=no faasd.service faasd-controller.service faasd-worker.service 2>&1)"
    echo "$said"
    [ -z "$said" ]
}
starts_nothing_unasked() {
    [ "$(inside systemctl is-enabled faasd.service)" = disabled ] && inside systemctl enable faasd.service &&
        [ -L "$root/etc/systemd/system/multi-user.target.wants/faasd.service" ]
}
is_updated() {
    echo '# a change of the administrator' >>"$root/etc/faasd/faasd.toml"
    # A second installation over it keeps what was changed.
    inside dpkg --force-confold -i /tmp/faasd.deb
    grep -q 'a change of the administrator' "$root/etc/faasd/faasd.toml"
}
is_removed() {
    mkdir -p "$root/var/lib/faasd"
    inside dpkg -r faasd
    if [ -e "$root/usr/bin/faasd" ] || [ ! -f "$root/etc/faasd/faasd.toml" ]; then
        echo "the executable must go and the configuration stay"
        return 1
    fi
    inside dpkg -P faasd
    [ ! -e "$root/etc/faasd/faasd.toml" ] && [ -d "$root/var/lib/faasd" ]
}

check "package: is made" is_made
package="$(cat "$WORK/name")"
check "package: is installed" is_installed
check "package: has its files" has_its_files
check "package: has its rights" has_its_rights
check "package: is configured" is_configured
check "package: has sound units" has_sound_units
check "package: starts nothing unasked" starts_nothing_unasked
check "package: is updated" is_updated
check "package: is removed" is_removed
checks_end
