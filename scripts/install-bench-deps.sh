#!/usr/bin/env bash
# References that `make bench` compares with where they are there: functions-framework under gunicorn, and workerd. Into
# target/bench-deps, so that nothing of the machine changes. What can't be fetched is said, and reported as absent by the bench.
set -uo pipefail
cd "$(dirname "$0")/.."
into=target/bench-deps
mkdir -p "$into"

if [ ! -x "$into/venv/bin/gunicorn" ]; then
    { python3 -m venv "$into/venv" &&
        "$into/venv/bin/pip" install --quiet --no-cache-dir functions-framework==3.10.2 gunicorn==27.0.1; } ||
        echo 'functions-framework could not be installed: the bench will say that it is absent' >&2
fi
if [ ! -x "$into/workerd/node_modules/@cloudflare/workerd-linux-64/bin/workerd" ]; then
    npm install --prefix "$into/workerd" --no-save --no-fund --no-audit --ignore-scripts --silent workerd@1.20261117.1 >/dev/null ||
        echo 'workerd could not be installed: the bench will say that it is absent' >&2
fi
