#!/usr/bin/env bash
# `make audit`: cargo-deny over the dependency tree. Bans, licences and sources need no network and must pass; the advisory
# database does, and where it can't be had that is said, not hidden.
set -euo pipefail
cd "$(dirname "$0")/.."

version=0.20.2
tools="$PWD/target/tools"
deny="$(command -v cargo-deny || true)"
if [ -z "$deny" ]; then
    deny="$tools/bin/cargo-deny"
    if [ ! -x "$deny" ]; then
        echo "installing cargo-deny $version into target/tools"
        cargo install cargo-deny --locked --version "$version" --root "$tools"
    fi
fi

"$deny" --locked check bans licenses sources

if "$deny" --locked fetch db >/dev/null 2>&1; then
    "$deny" --locked check --disable-fetch advisories
else
    echo
    echo "!! SKIPPED: advisories were not checked, because the advisory database can't be fetched from here."
    echo "!! Run  make audit  again where https://github.com/rustsec/advisory-db is reachable."
fi
