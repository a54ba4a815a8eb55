#!/usr/bin/env bash
# What `make run` needs and this machine lacks: interpreters, compilers for compile-at-deploy, and a C compiler for the build.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/packages.sh
. scripts/packages.sh

need cc build-essential
need g++ g++
need python3 python3
need node nodejs
need go golang-go version
need curl curl
[ -e /etc/ssl/certs/ca-certificates.crt ] || MISSING_PACKAGES+=(ca-certificates)
install_missing

if ! command -v cargo >/dev/null; then
    echo "cargo is not there: install Rust from https://rustup.rs, then try again" >&2
    exit 1
fi
