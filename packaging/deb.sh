#!/usr/bin/env bash
# Makes the Debian package: packaging/deb.sh EXECUTABLE [DIRECTORY]. Prints the package's path. Needs dpkg-deb alone.
set -euo pipefail

executable="$(realpath "${1:?usage: packaging/deb.sh EXECUTABLE [DIRECTORY]}")"
out="$(realpath "${2:-.}")"
cd "$(dirname "$0")/.."

version="$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)"
machine="$(LC_ALL=C readelf -h "$executable" | sed -n 's/^ *Machine: *//p')"
case "$machine" in
*X86-64*) architecture=amd64 ;;
*AArch64*) architecture=arm64 ;;
*)
    echo "$executable is for $machine; packages are made for amd64 and arm64" >&2
    exit 1
    ;;
esac
# What it was linked against is the least it starts with.
glibc="$(grep -aoE 'GLIBC_2\.[0-9]+' "$executable" | sort -Vu | tail -n 1)"

root="$(mktemp -d)"
trap 'rm -rf -- "$root"' EXIT
chmod 0755 "$root"
packaging/tree.sh "$root" "$executable"
mkdir "$root/DEBIAN"
for script in postinst prerm postrm; do
    install -m 0755 "packaging/debian/$script" "$root/DEBIAN/$script"
done
printf '/etc/faasd/%s\n' faasd.toml environment >"$root/DEBIAN/conffiles"
cat >"$root/DEBIAN/control" <<EOT
Package: faasd
Version: $version
Architecture: $architecture
Maintainer: faasd's own build <root@localhost>
Section: admin
Priority: optional
Installed-Size: $(du -sk --exclude=DEBIAN "$root" | cut -f 1)
Depends: libc6 (>= ${glibc#GLIBC_}), libgcc-s1, ca-certificates, systemd
Recommends: python3, nodejs
Suggests: golang-go, g++
Description: a function platform in one executable
 Upload code, call it over HTTP, and it runs in an isolated, already-warm
 sandbox. Not affiliated with the OpenFaaS project of the same name.
EOT
# Everybody's files are root's, whoever builds.
dpkg-deb --root-owner-group --build "$root" "$out/faasd_${version}_$architecture.deb" >/dev/null
echo "$out/faasd_${version}_$architecture.deb"
