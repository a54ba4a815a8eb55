#!/usr/bin/env bash
# `make cluster`: a fleet on this machine's loopback: Redis, what stands in for AWS, two controllers and three workers, with an example
# deployed. Everything it keeps is under ./.faasd-cluster (CLUSTER_DIR chooses another) and is begun anew each time. Ctrl-C ends it.
# PORT is the first controller's (18080); the other nodes follow it.
set -euo pipefail
cd "$(dirname "$0")/.."

dir="${CLUSTER_DIR:-$PWD/.faasd-cluster}"
port="${PORT:-18080}"
controllers=2
workers=3
ready_seconds_max=60

if [ "${1:-}" != "--no-install" ]; then
    # shellcheck source=scripts/packages.sh
    . scripts/packages.sh
    scripts/install-runtime-deps.sh
    need redis-server redis-server
    install_missing
fi
cargo build --release --locked
cargo build --release --locked --example cloud
target="${CARGO_TARGET_DIR:-target}/release"
faasd="$target/faasd"

for ((n = 0; n <= controllers + workers; n++)); do
    if (exec 3<>"/dev/tcp/127.0.0.1/$((port + n))") 2>/dev/null; then
        echo "something already listens on 127.0.0.1:$((port + n)): end it, or choose another first port:  PORT=19000 make cluster" >&2
        exit 1
    fi
done
rm -rf "$dir"
mkdir -p -m 0700 "$dir"

pids=()
nodes=()
# In process groups of their own: the terminal's Ctrl-C would reach them beside our SIGTERM, and two signals end a node at once.
set -m

# Nodes drain first, while they have a store and a Redis; then those.
end() {
    trap - EXIT INT TERM
    for ((n = ${#nodes[@]} - 1; n >= 0; n--)); do kill -TERM "${nodes[n]}" 2>/dev/null || true; done
    for pid in "${nodes[@]}"; do wait "$pid" 2>/dev/null || true; done
    for pid in "${pids[@]}"; do kill -TERM "$pid" 2>/dev/null || true; done
    for pid in "${pids[@]}"; do wait "$pid" 2>/dev/null || true; done
}
trap end EXIT INT TERM

# What stands in for AWS serves until its input ends.
mkfifo "$dir/cloud.stdin"
"$target/examples/cloud" <"$dir/cloud.stdin" >"$dir/cloud.json" 2>"$dir/cloud.log" &
pids+=($!)
exec 4>"$dir/cloud.stdin"
for ((tenths = 0; tenths < 100; tenths++)); do
    [ -s "$dir/cloud.json" ] && break
    sleep 0.1
done
endpoint() { sed -n "s/.*\"$1\": *\"\([^\"]*\)\".*/\1/p" "$dir/cloud.json"; }

redis_port=$((port + controllers + workers))
redis-server --port "$redis_port" --bind 127.0.0.1 --save '' --appendonly no --dir "$dir" >"$dir/redis.log" 2>&1 &
pids+=($!)

AWS_ENDPOINT_URL_SQS="$(endpoint sqs)"
AWS_ENDPOINT_URL_S3="$(endpoint s3)"
AWS_ENDPOINT_URL_DYNAMODB="$(endpoint dynamodb)"
export AWS_ENDPOINT_URL_SQS AWS_ENDPOINT_URL_S3 AWS_ENDPOINT_URL_DYNAMODB
export AWS_ACCESS_KEY_ID=local AWS_SECRET_ACCESS_KEY=local AWS_REGION=us-east-1 AWS_EC2_METADATA_DISABLED=true
sqs() {
    curl -fsS "$AWS_ENDPOINT_URL_SQS/" -H "x-amz-target: AmazonSQS.$1" -H 'content-type: application/x-amz-json-1.0' -d "$2"
}
curl -fsS -o /dev/null -X PUT "$AWS_ENDPOINT_URL_S3/faasd-artifacts"
dead="$(sqs CreateQueue '{"QueueName": "faasd-dead"}' | sed -n 's/.*"QueueUrl": *"\([^"]*\)".*/\1/p')"
queue="$(sqs CreateQueue '{"QueueName": "faasd-jobs", "Attributes": {"VisibilityTimeout": "30", "RedrivePolicy":
    "{\"deadLetterTargetArn\":\"arn:aws:sqs:us-east-1:000000000000:faasd-dead\",\"maxReceiveCount\":\"20\"}"}}' |
    sed -n 's/.*"QueueUrl": *"\([^"]*\)".*/\1/p')"

random() { od -An -N32 -tx1 /dev/urandom | tr -d ' \n'; }
(umask 077 && random >"$dir/secrets.key" && random >"$dir/fleet.secret")
export FAASD_BACKEND=aws FAASD_AWS__BUCKET=faasd-artifacts FAASD_AWS__QUEUE_URL="$queue"
export FAASD_AWS__DEAD_LETTER_QUEUE_URL="$dead" FAASD_REDIS__URL="redis://127.0.0.1:$redis_port"
export FAASD_SECRETS__KEY_FILE="$dir/secrets.key" FAASD_FLEET__SECRET_FILE="$dir/fleet.secret" FAASD_ISOLATION=auto
"$faasd" admin create-tables

# Each worker has a range of user ids and a name for its control groups: on one machine they may not meet.
for ((n = 0; n < controllers + workers; n++)); do
    role=worker
    ((n < controllers)) && role=controller
    name="$role-$((n < controllers ? n : n - controllers))"
    FAASD_SANDBOX__CGROUP_PREFIX="faasd-$name" FAASD_SANDBOX__UID_FIRST=$((1600000000 + n * 65536)) \
        "$faasd" --role "$role" --listen "127.0.0.1:$((port + n))" --data-dir "$dir/$name" >"$dir/$name.log" 2>&1 &
    nodes+=($!)
done
for ((n = 0; n < controllers + workers; n++)); do
    for ((tenths = 0; ; tenths++)); do
        curl -fs -o /dev/null --max-time 2 "http://127.0.0.1:$((port + n))/ready" && break
        if ! kill -0 "${nodes[n]}" 2>/dev/null || ((tenths >= ready_seconds_max * 10)); then
            echo "a node is not ready; its log:" >&2
            tail -n 20 "$dir"/*-*.log >&2
            exit 1
        fi
        sleep 0.1
    done
done

key="$(cat "$dir"/controller-*/admin.key)"
export FAASD_API_KEY="$key"
"$faasd" deploy examples/hello-python --url "http://127.0.0.1:$port"
for ((n = 0; n < controllers; n++)); do
    echo "through controller $n:"
    "$faasd" invoke hello-python '{"name": "fleet"}' --url "http://127.0.0.1:$((port + n))"
done

cat <<EOT

A fleet runs: controllers at http://127.0.0.1:$port and http://127.0.0.1:$((port + 1)), $workers workers, logs in $dir.
Paste this into a second terminal:

  export FAASD_URL=http://127.0.0.1:$((port + 1)) FAASD_API_KEY=\$(cat $dir/controller-*/admin.key)
  $faasd workers
  $faasd invoke hello-python '{"name": "world"}'

Ctrl-C ends it.
EOT
if [ "${CLUSTER_ONCE:-}" = 1 ]; then
    exit 0
fi
# Until one of them ends by itself, or Ctrl-C.
wait -n "${nodes[@]}" "${pids[@]}" || true
echo "a process of the fleet ended; logs are in $dir" >&2
exit 1
