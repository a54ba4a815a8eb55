#!/usr/bin/env bash
# What the tests need: what a run needs, and make for `.ci/run`.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/packages.sh
. scripts/packages.sh

scripts/install-runtime-deps.sh
need make make
install_missing
