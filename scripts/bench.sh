#!/usr/bin/env bash
# `make bench`: every bench, several rounds of the load so that drift hits all cases alike, then one report beside the goals.
# --rounds N (3)  --seconds S (2) of each load case  --only "NAME|NAME" of load cases, without the other benches  --no-history
# --no-install leaves the references as they are
set -euo pipefail
cd "$(dirname "$0")/.."

rounds=3
seconds=2
only=
report=()
install=1
while [ $# -gt 0 ]; do
    case "$1" in
        --rounds) rounds="$2"; shift ;;
        --seconds) seconds="$2"; shift ;;
        --only) only="$2"; report+=(--partial); shift ;;
        --no-history) report+=(--no-history) ;;
        --no-install) install= ;;
        *) echo "what is $1?" >&2; sed -n 3,4p "$0" >&2; exit 2 ;;
    esac
    shift
done

[ -z "$install" ] || scripts/install-bench-deps.sh
cargo bench --locked --no-run
# What stands in for AWS beside the bench of the fleet.
cargo build --release --locked --example cloud
bench() {
    local name="$1"
    shift
    cargo bench --quiet --locked --bench "$name" -- "$@"
}

bench report begin
for ((round = 1; round <= rounds; round++)); do
    echo "round $round of $rounds" >&2
    bench load --seconds "$seconds" ${only:+--only "$only"}
done
if [ -z "$only" ]; then
    # Files of their own are criterion's, unless they say otherwise by their main; folders tell their rows themselves.
    for file in benches/*.rs; do
        if grep -q criterion_main "$file"; then
            CRITERION_HOME="$PWD/target/bench/criterion" bench "$(basename "$file" .rs)" \
                --noplot --warm-up-time 0.3 --measurement-time 1 >/dev/null
        else
            bench "$(basename "$file" .rs)"
        fi
    done
    for folder in benches/*/main.rs; do
        name="$(basename "$(dirname "$folder")")"
        case "$name" in
            load | report | simulate) ;;
            growth) bench growth --short ;;
            *) bench "$name" ;;
        esac
    done
fi
bench report end --rounds "$rounds" "${report[@]}"
