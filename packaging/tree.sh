#!/usr/bin/env bash
# Lays faasd's files out below a directory as a system has them: packaging/tree.sh DIRECTORY EXECUTABLE. Both the package (deb.sh) and
# the installation without one (install.sh) are made of it. Configuration that is there already is left alone.
set -euo pipefail

to="${1:?the directory}"
executable="$(realpath "${2:?the executable}")"
cd "$(dirname "$0")/.."

install -D -m 0755 "$executable" "$to/usr/bin/faasd"
for unit in systemd/*.service; do
    install -D -m 0644 "$unit" "$to/usr/lib/systemd/system/${unit##*/}"
done
install -D -m 0644 systemd/faasd.sysusers "$to/usr/lib/sysusers.d/faasd.conf"
install -D -m 0644 systemd/faasd.tmpfiles "$to/usr/lib/tmpfiles.d/faasd.conf"
install -D -m 0644 systemd/60-faasd.conf "$to/usr/lib/sysctl.d/60-faasd.conf"
for page in operations errors limits metrics; do
    install -D -m 0644 "docs/$page.md" "$to/usr/share/doc/faasd/$page.md"
done
install -D -m 0644 LICENSE "$to/usr/share/doc/faasd/copyright"
for example in faasd controller worker; do
    install -D -m 0644 "config/$example.toml" "$to/usr/share/doc/faasd/examples/$example.toml"
done
install -D -m 0644 config/alerts.yaml "$to/usr/share/doc/faasd/examples/alerts.yaml"

# One machine that does both, ready to start. Controllers and workers need names of yours: their examples are among the documents.
configuration() {
    [ -e "$to/etc/faasd/$3" ] || install -D -m "$1" "$2" "$to/etc/faasd/$3"
}
configuration 0644 config/both.toml faasd.toml
configuration 0600 systemd/faasd.environment environment
