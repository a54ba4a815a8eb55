#!/usr/bin/env bash
# What the tests need: what a run needs, make for `.ci/run`, Prometheus with its promtool to read the metrics, and an emulator of AWS.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/packages.sh
. scripts/packages.sh

scripts/install-runtime-deps.sh
need make make
need promtool prometheus
need prometheus prometheus
python3 -m pip --version >/dev/null 2>&1 || MISSING_PACKAGES+=(python3-pip)
python3 -c 'import ensurepip, venv' >/dev/null 2>&1 || MISSING_PACKAGES+=(python3-venv)
install_missing

# For the test that numeric libraries load in a sandbox: one wheel, of the version that is tried, inside the tree.
if ! compgen -G 'target/test-deps/numpy-2.2.6-*.whl' >/dev/null; then
    python3 -m pip download --quiet --no-deps --no-cache-dir --only-binary :all: --dest target/test-deps numpy==2.2.6 ||
        echo 'numpy 2.2.6 could not be fetched: its test will fail and say so' >&2
fi

# For the tests of what is kept in AWS: moto, of the version that is tried, in a place of its own inside the tree.
moto=5.2.5
if [ ! -e "target/test-deps/moto/$moto" ]; then
    rm -rf target/test-deps/moto
    if python3 -m venv target/test-deps/moto &&
        target/test-deps/moto/bin/python -m pip install --quiet --disable-pip-version-check --no-cache-dir "moto[server]==$moto"; then
        touch "target/test-deps/moto/$moto"
    else
        echo "moto $moto could not be installed: the tests of AWS will fail and say so" >&2
    fi
fi
