#!/usr/bin/env bash
# Builds both images: packer/build.sh EXECUTABLE-FOR-X86_64 EXECUTABLE-FOR-ARM64 [packer's options, like -var region=us-east-1].
# Version and digests, which become tags, are taken from the executables themselves.
set -euo pipefail

if [ $# -lt 2 ]; then
    echo "usage: packer/build.sh EXECUTABLE-FOR-X86_64 EXECUTABLE-FOR-ARM64 [OPTIONS]" >&2
    exit 2
fi
x86_64="$(realpath "$1")"
arm64="$(realpath "$2")"
shift 2
cd "$(dirname "$0")"

# Amazon Linux 2023 has glibc 2.34: what was linked against a later one does not start there.
for executable in "$x86_64" "$arm64"; do
    newest="$(grep -aoE 'GLIBC_2\.[0-9]+' "$executable" | sort -Vu | tail -n 1)"
    if [ "$(printf '%s\n' "${newest:-GLIBC_2.0}" GLIBC_2.34 | sort -V | tail -n 1)" != GLIBC_2.34 ]; then
        echo "$executable needs $newest, and Amazon Linux 2023 has GLIBC_2.34: build it there, or on something as old" >&2
        exit 1
    fi
done
version="$(sed -n 's/^version = "\(.*\)"/\1/p' ../Cargo.toml | head -n 1)"
digest() { sha256sum "$1" | cut -d ' ' -f 1; }

packer init .
packer build \
    -var "executable_x86_64=$x86_64" -var "digest_x86_64=$(digest "$x86_64")" \
    -var "executable_arm64=$arm64" -var "digest_arm64=$(digest "$arm64")" \
    -var "version=$version" "$@" .
