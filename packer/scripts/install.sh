#!/usr/bin/env bash
# Run by packer as root on the machine that becomes the image: installs what was put into /tmp/faasd, and what it needs.
set -euo pipefail

from=/tmp/faasd
packages=(python3.11 nodejs20 redis6)
if [ "${COMPILERS:-no}" = yes ]; then
    packages+=(golang gcc-c++)
fi
if [ "${CLOUDWATCH_AGENT:-no}" = yes ]; then
    packages+=(amazon-cloudwatch-agent)
fi
dnf -y -q upgrade --security
dnf -y -q install --setopt=install_weak_deps=False "${packages[@]}"

install -m 0755 "$from/faasd" /usr/bin/faasd
install -d -m 0755 /usr/lib/faasd /etc/systemd/system
install -m 0755 "$from/files/faasd-boot" /usr/lib/faasd/boot
install -m 0644 "$from"/systemd/faasd*.service /usr/lib/systemd/system/
install -m 0644 "$from/systemd/faasd.sysusers" /usr/lib/sysusers.d/faasd.conf
install -m 0644 "$from/systemd/faasd.tmpfiles" /usr/lib/tmpfiles.d/faasd.conf
install -m 0644 "$from/systemd/60-faasd.conf" /usr/lib/sysctl.d/60-faasd.conf
systemd-sysusers
systemd-tmpfiles --create faasd.conf

# Nothing starts by itself but what user data asks for. Access is by Session Manager: nobody logs in over the network.
systemctl daemon-reload
systemctl disable redis6.service 2>/dev/null || true
systemctl disable sshd.service sshd.socket 2>/dev/null || true
systemctl enable amazon-ssm-agent.service
