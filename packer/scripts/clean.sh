#!/usr/bin/env bash
# Run by packer as root, last: whatever makes instances of the image alike, or tells of its making, goes.
set -euo pipefail

rm -rf /tmp/faasd /var/lib/faasd /var/log/journal/* /var/cache/dnf /root/.bash_history /home/*/.bash_history
rm -f /etc/ssh/ssh_host_*_key* /home/*/.ssh/authorized_keys /root/.ssh/authorized_keys
cloud-init clean --logs
truncate -s 0 /etc/machine-id
sync
