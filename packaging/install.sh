#!/usr/bin/env bash
# Installs or updates faasd on any machine with systemd, as root: packaging/install.sh EXECUTABLE. On Debian and its kin the package
# (packaging/deb.sh) does the same, and can be removed again.
set -euo pipefail

executable="${1:?usage: packaging/install.sh EXECUTABLE}"
if [ "$(id -u)" -ne 0 ]; then
    echo "not root: run  sudo $0 $executable" >&2
    exit 1
fi
if ! command -v systemctl >/dev/null; then
    echo "no systemd here: start $executable by this system's own means; docs/operations.md says what it needs" >&2
    exit 1
fi
# Before it takes the place of one that does.
if ! said="$("$executable" --version 2>&1)"; then
    echo "$executable does not run here${said:+: $said}" >&2
    exit 1
fi
"$(dirname "$0")/tree.sh" / "$executable"
systemd-sysusers faasd.conf
systemd-tmpfiles --create faasd.conf
if [ -d /run/systemd/system ]; then
    sysctl -q -p /usr/lib/sysctl.d/60-faasd.conf || true
    systemctl daemon-reload
    # Whatever runs takes the new executable, having drained.
    systemctl try-restart faasd.service faasd-controller.service faasd-worker.service
fi
cat <<'EOT'
faasd is installed. See whether this machine has what it needs, then start it:

  faasd doctor
  systemctl enable --now faasd
EOT
