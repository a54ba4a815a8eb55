#!/usr/bin/env bash
# What the tests need: what a run needs, make for `.ci/run`, Redis, Prometheus with its promtool to read the metrics, and what reads units,
# image and scripts.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/packages.sh
. scripts/packages.sh

scripts/install-runtime-deps.sh
need make make
need promtool prometheus
need prometheus prometheus
need ip iproute2 -V
# The server itself, by another name, and no service.
need redis-check-rdb redis-tools
need setpriv util-linux
need packer packer
need shellcheck shellcheck
need systemd-analyze systemd
python3 -m pip --version >/dev/null 2>&1 || MISSING_PACKAGES+=(python3-pip)
install_missing

# For the test that numeric libraries load in a sandbox: one wheel, of the version that is tried, inside the tree.
if ! compgen -G 'target/test-deps/numpy-2.2.6-*.whl' >/dev/null; then
    python3 -m pip download --quiet --no-deps --no-cache-dir --only-binary :all: --dest target/test-deps numpy==2.2.6 ||
        echo 'numpy 2.2.6 could not be fetched: its test will fail and say so' >&2
fi
