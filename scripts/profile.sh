#!/usr/bin/env bash
# Where a warm call's time goes: the real executable with names, an echo in Python, 64 connections for six seconds.
# Draws docs/flame-warm.svg and prints the daemon's processor time by step (ARCHITECTURE.md has the table).
# Needs root, wrk, zip, curl and perf (Debian: wrk zip curl linux-perf).
set -euo pipefail
cd "$(dirname "$0")/.."
for tool in perf wrk zip curl; do
    command -v "$tool" >/dev/null || { echo "profile: $tool is missing (Debian: apt install wrk zip curl linux-perf)" >&2; exit 1; }
done

export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target/profile}"
export CARGO_PROFILE_RELEASE_STRIP=none CARGO_PROFILE_RELEASE_DEBUG=line-tables-only
cargo build --quiet --locked --release --bin faasd

home="$(mktemp -d)"
daemon=
end() {
    [ -z "$daemon" ] || { kill "$daemon" && wait "$daemon"; } 2>/dev/null || true
    rm -rf "$home"
}
trap end EXIT
FAASD_SANDBOX__CGROUP_PREFIX="faasd-profile-$$" "$CARGO_TARGET_DIR/release/faasd" --listen 127.0.0.1:0 --data-dir "$home/data" >"$home/log" 2>&1 &
daemon=$!
for _ in $(seq 100); do
    [ -s "$home/data/address" ] && [ -s "$home/data/admin.key" ] && break
    sleep 0.1
done
address="$(cat "$home/data/address")" key="$(cat "$home/data/admin.key")"
printf 'def handler(event, context):\n    return event\n' >"$home/handler.py"
(cd "$home" && zip -q code.zip handler.py)
curl -fsS -H "X-API-Key: $key" -F name=echo -F runtime=python -F "file=@$home/code.zip" "http://$address/upload" >/dev/null
cat >"$home/run.lua" <<LUA
wrk.method = "POST"
wrk.headers["X-API-Key"] = "$key"
wrk.headers["Content-Type"] = "application/json"
wrk.body = '{"functionId":"echo","inputData":{"message":"hello"}}'
LUA
load() { wrk -t1 -c64 -d"$1" --latency -s "$home/run.lua" "http://$address/run"; }
ticks() { awk '{ print $14 + $15 }' "/proc/$daemon/stat"; }

load 3 >/dev/null
before="$(ticks)"
load 6 >"$home/wrk"
after="$(ticks)"
grep -q 'Non-2xx' "$home/wrk" && { cat "$home/wrk" >&2; exit 1; }
calls="$(awk '/requests in/ { print $1 }' "$home/wrk")"
per_call="$(awk "BEGIN { print ($after - $before) * 1000000 / $(getconf CLK_TCK) / $calls }")"
# With perf at work calls take longer, so the time of a call is from the run before.
load 6 >/dev/null &
perf record --quiet -F 997 -e cpu-clock --call-graph dwarf,16384 -p "$daemon" -o "$home/perf.data" -- sleep 5 >/dev/null
wait $!
perf script -i "$home/perf.data" --no-inline 2>/dev/null >"$home/samples"
python3 scripts/flame.py "Warm POST /run, Python echo, 64 connections: the daemon" <"$home/samples" >docs/flame-warm.svg
grep -E 'Requests/sec| 50%| 99%' "$home/wrk"
python3 scripts/steps.py "$per_call" <"$home/samples"
