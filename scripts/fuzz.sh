#!/bin/sh
# Fuzzes: `scripts/fuzz.sh TARGET SECONDS`, or every target in turn with `scripts/fuzz.sh all SECONDS`. Stable Rust, libFuzzer,
# coverage but no sanitizer. What it finds worth keeping goes to target/fuzz/found/TARGET, an input that breaks a promise to
# target/fuzz/crash-…, and the exit code is then not 0.
set -eu
cd "$(dirname "$0")/.."

target=${1:?usage: scripts/fuzz.sh TARGET|all SECONDS}
seconds=${2:?usage: scripts/fuzz.sh TARGET|all SECONDS}
host=$(rustc -vV | sed -n 's/^host: //p')

# As cargo-fuzz does it; with --target, so that build scripts and macros are not instrumented.
export RUSTFLAGS="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares"
cargo build --manifest-path fuzz/Cargo.toml --target-dir target/fuzz --target "$host" --release --locked --bins

if [ "$target" = all ]; then
    targets=$(cd fuzz/fuzz_targets && ls | sed 's/\.rs$//')
else
    targets=$target
fi
# libFuzzer ends a process without its destructors.
TMPDIR=$(mktemp -d)
export TMPDIR
trap 'rm -rf "$TMPDIR"' EXIT
for each in $targets; do
    mkdir -p "target/fuzz/found/$each"
    echo "fuzzing $each for $seconds s"
    # Input files of 64 KiB hold a frame's whole meta part; 1 GiB of memory and 10 s for one input are a finding.
    "target/fuzz/$host/release/$each" -max_total_time="$seconds" -max_len=65536 -rss_limit_mb=1024 -timeout=10 \
        -print_final_stats=1 -verbosity=0 -artifact_prefix=target/fuzz/ "target/fuzz/found/$each" "fuzz/corpus/$each"
done
