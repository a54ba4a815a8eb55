#!/usr/bin/env bash
# `make run`: from a fresh clone to a running daemon with the examples deployed. Ctrl-C ends it cleanly.
# LISTEN and DATA_DIR choose another address and another directory.
set -euo pipefail
cd "$(dirname "$0")/.."

listen="${LISTEN:-127.0.0.1:8080}"
data="${DATA_DIR:-$PWD/.faasd}"
url="http://$listen"
ready_seconds_max=60

if [ "${1:-}" != "--no-install" ]; then
    scripts/install-runtime-deps.sh
fi

# Bash opens the connection itself, so nothing needs to be installed to find out.
if (exec 3<>"/dev/tcp/${listen%:*}/${listen##*:}") 2>/dev/null; then
    echo "something already listens on $listen: end it, or choose another port:  LISTEN=127.0.0.1:8081 make run" >&2
    exit 1
fi

cargo build --release --locked
faasd="${CARGO_TARGET_DIR:-target}/release/faasd"

# In a process group of its own: the terminal's Ctrl-C would reach it beside our SIGTERM, and two signals end it at once.
set -m
"$faasd" --listen "$listen" --data-dir "$data" --isolation auto &
daemon=$!
set +m

# Asks the daemon to drain and waits for its end; Ctrl-C meanwhile is the second signal.
end() {
    trap - EXIT
    trap 'kill -TERM "$daemon" 2>/dev/null || true' INT TERM
    kill -TERM "$daemon" 2>/dev/null || true
    local code=0
    while kill -0 "$daemon" 2>/dev/null; do
        code=0
        wait "$daemon" || code=$?
    done
    exit "$code"
}
trap end INT TERM EXIT

for ((tenths = 0; ; tenths++)); do
    if ! kill -0 "$daemon" 2>/dev/null; then
        code=0
        wait "$daemon" || code=$?
        trap - EXIT
        echo "the daemon ended with code $code before it was ready; what it said is above" >&2
        exit 1
    fi
    if curl -fs -o /dev/null --max-time 2 "$url/ready"; then
        break
    fi
    if ((tenths >= ready_seconds_max * 10)); then
        echo "the daemon was not ready within $ready_seconds_max s:" >&2
        curl -s --max-time 2 "$url/ready" >&2 || true
        exit 1
    fi
    sleep 0.1
done

deployed=()
for folder in examples/*/; do
    [ -d "$folder" ] || continue
    if answer="$("$faasd" deploy "$folder" --json --url "$url" --data-dir "$data")"; then
        name="$(sed -n 's/.*"name": *"\([^"]*\)".*/\1/p' <<<"$answer" | head -n 1)"
        echo "deployed $folder as $name"
        deployed+=("$name")
    else
        echo "example $folder was not deployed; why is said above" >&2
    fi
done

first="${deployed[0]:-hello}"
for name in "${deployed[@]}"; do
    if [[ "$name" == *python* ]]; then first="$name"; fi
done

cat <<EOT

faasd runs at $url, its data under $data. Paste this into a second terminal:

  curl -s $url/run -H "x-api-key: \$(cat $data/admin.key)" -H 'content-type: application/json' -d '{"name": "$first", "inputData": {"name": "world"}}'

Ctrl-C ends it.
EOT

# Its end by itself, and its exit code.
trap - EXIT
code=0
wait "$daemon" || code=$?
exit "$code"
