#!/usr/bin/env bash
# What the tests need: what a run needs, make for `.ci/run`, and Prometheus with its promtool to read the metrics.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/packages.sh
. scripts/packages.sh

scripts/install-runtime-deps.sh
need make make
need promtool prometheus
need prometheus prometheus
install_missing
