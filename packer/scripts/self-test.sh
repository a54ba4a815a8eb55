#!/usr/bin/env bash
# Run by packer as root: the image is kept if the daemon finds everything here, starts under its unit, and answers one call.
set -euo pipefail

sysctl -q --system
# As on a node (files/10-fleet.conf).
export FAASD_RUNTIMES__PYTHON=/usr/bin/python3.11
systemctl set-environment FAASD_RUNTIMES__PYTHON=/usr/bin/python3.11

cat >/etc/faasd/faasd.toml <<'EOT'
role = "both"
data_dir = "/var/lib/faasd"
isolation = "strict"
EOT
end() {
    systemctl stop faasd.service || true
    systemctl unset-environment FAASD_RUNTIMES__PYTHON
    rm -rf /var/lib/faasd /etc/faasd/faasd.toml
}
trap end EXIT
if ! systemctl start faasd.service; then
    journalctl -u faasd.service --no-pager | tail -n 50 >&2
    exit 1
fi
for _ in $(seq 60); do
    curl -fs -o /dev/null http://127.0.0.1:8080/ready && break
    sleep 0.5
done
curl -fsS http://127.0.0.1:8080/ready
# With the daemon there to be asked; weak is not good enough for an image. Only compilers are there or not, as whoever builds it wants.
faasd doctor
faasd doctor --json | python3.11 -c '
import json, sys
checks = json.load(sys.stdin)["checks"]
sys.exit(any(check["state"] != "good" and check["name"] not in ("runtime go", "runtime cpp") for check in checks))'
faasd deploy /tmp/faasd/hello-python
answer="$(faasd invoke hello-python '{"name": "image"}')"
echo "$answer"
grep -q image <<<"$answer"
systemctl stop faasd.service
if [ -n "$(find /sys/fs/cgroup -type d -name '*faasd*' -print -quit)" ]; then
    echo "the daemon left control groups behind" >&2
    exit 1
fi
