#!/usr/bin/env bash
# `make deploy-test`: both examples of terraform/ applied to an emulator of AWS, planned again without a change, and what they made
# looked at. Minutes long; `scripts/deploy-check.sh` has what is quick. What the emulator can't take: docs/operations.md.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/deploy-lib.sh
. scripts/deploy-lib.sh

moto=5.2.5
apply_seconds_max=600
region=eu-central-1

work_directory
find_terraform
if [ -n "$TERRAFORM_MISSING" ]; then
    ignored "apply to the emulator" "$TERRAFORM_MISSING"
    checks_end
    exit
fi

tools="$PWD/${CARGO_TARGET_DIR:-target}/tools/moto-$moto"
[[ "${CARGO_TARGET_DIR:-}" == /* ]] && tools="$CARGO_TARGET_DIR/tools/moto-$moto"
if [ ! -x "$tools/bin/moto_server" ]; then
    python3 -m venv "$tools"
    "$tools/bin/pip" install --quiet "moto[server]==$moto"
fi

# Starts the emulator on a free port and sets AWS_ENDPOINT_URL. Another process may take the port between our look and its use.
emulator=""
start_emulator() {
    local port tries
    for tries in 1 2 3 4 5; do
        port="$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')"
        "$tools/bin/moto_server" -H 127.0.0.1 -p "$port" >"$WORK/emulator.log" 2>&1 &
        emulator=$!
        for _ in $(seq 150); do
            if curl -fs -o /dev/null --max-time 2 "http://127.0.0.1:$port/moto-api/" && kill -0 "$emulator" 2>/dev/null; then
                export AWS_ENDPOINT_URL="http://127.0.0.1:$port"
                return 0
            fi
            kill -0 "$emulator" 2>/dev/null || break
            sleep 0.2
        done
        echo "the emulator did not start (try $tries)" >&2
    done
    cat "$WORK/emulator.log" >&2
    return 1
}
end() {
    if [ -n "$emulator" ]; then
        kill "$emulator" 2>/dev/null || true
        wait "$emulator" 2>/dev/null || true
    fi
    rm -rf -- "$WORK"
}
trap end EXIT
trap 'exit 130' INT TERM
start_emulator
# With ElastiCache there is nothing to apply: the emulator has no nodes in its replication groups. `terraform test` has that.
export AWS_ACCESS_KEY_ID=test AWS_SECRET_ACCESS_KEY=test AWS_REGION=$region AWS_DEFAULT_REGION=$region
# Nothing of this machine's own account.
export AWS_CONFIG_FILE="$WORK/none" AWS_SHARED_CREDENTIALS_FILE="$WORK/none" AWS_EC2_METADATA_DISABLED=true

# `example RUN EXAMPLE ARGUMENTS…`: applies EXAMPLE under the name RUN, and plans it again, which must find nothing to do.
example() {
    local run="$1" example="$2" code=0
    shift 2
    mkdir "$WORK/$run"
    cp -r terraform "$WORK/$run/"
    # What the emulator can't take.
    rm "$WORK/$run/terraform/queue_redrive_allow.tf"
    local here="$WORK/$run/terraform/examples/$example"
    cp scripts/emulator/module_override.tf "$WORK/$run/terraform/"
    cp scripts/emulator/example_override.tf "$here/"
    local arguments=(-no-color -input=false -var "name=$run" -var "region=$region" -var 'callers=["203.0.113.0/24"]'
        -var image_id=ami-0123456789abcdef0 "$@")
    terraform -chdir="$here" init -no-color -input=false >/dev/null
    timeout "$apply_seconds_max" terraform -chdir="$here" apply -auto-approve "${arguments[@]}"
    terraform -chdir="$here" output -json faasd >"$WORK/$run.json"
    terraform -chdir="$here" plan -detailed-exitcode "${arguments[@]}" || code=$?
    if [ "$code" -ne 0 ]; then
        echo "the second plan of $example is not empty (code $code)"
        return 1
    fi
    # Secrets are written only: none is in the state.
    python3 scripts/deploy-look.py state "$here/terraform.tfstate"
}

# Beside each other: most of their time is waiting.
runs=(minimal fleet)
declare -A pids
example minimal minimal >"$WORK/minimal.log" 2>&1 & pids[minimal]=$!
example fleet fleet >"$WORK/fleet.log" 2>&1 & pids[fleet]=$!
for run in "${runs[@]}"; do
    # In this shell, which alone may wait for its children.
    code=0
    wait "${pids[$run]}" || code=$?
    check "apply of $run to the emulator, and an empty plan after it" eval "[ $code -eq 0 ] || { grep -Ev 'Refreshing state|Closing' '$WORK/$run.log' | tail -n 60; false; }"
done

# Of what is not done that it asks for, terraform/checkov.yaml has the reasons.
checkov=3.3.30
tool="${tools%/*}/checkov-$checkov"
if [ ! -x "$tool/bin/checkov" ]; then
    python3 -m venv "$tool"
    "$tool/bin/pip" install --quiet "checkov==$checkov"
fi
check "checkov" "$tool/bin/checkov" --directory terraform --config-file terraform/checkov.yaml

for run in "${runs[@]}"; do
    if [ -f "$WORK/$run.json" ]; then
        check "what $run made in the emulator" "$tools/bin/python" scripts/deploy-look.py made "$WORK/$run.json" "$run"
    fi
done

# The boot script, with the secrets that the apply made and a metadata service of our own.
awscli=1.46.3
cli="${tools%/*}/awscli-$awscli"
if [ ! -x "$cli/bin/aws" ]; then
    python3 -m venv "$cli"
    "$cli/bin/pip" install --quiet "awscli==$awscli"
fi
boots() {
    local run="$WORK/run" path="/fleet" imds port code=0
    printf 'a certificate\nof two lines' >"$WORK/crt"
    "$cli/bin/aws" ssm put-parameter --name /own/tls.crt --type SecureString --value "file://$WORK/crt" >/dev/null
    "$cli/bin/aws" ssm put-parameter --name /own/tls.key --type SecureString --value "a key" >/dev/null
    python3 scripts/emulator/imds.py >"$WORK/imds" &
    imds=$!
    # This is a shell of its own (check), which waits for whoever holds its output.
    # shellcheck disable=SC2064 # Now: it is a local one.
    trap "kill $imds 2>/dev/null || true" EXIT
    for _ in $(seq 50); do
        [ -s "$WORK/imds" ] && break
        sleep 0.1
    done
    port="$(cat "$WORK/imds")"
    boot() {
        env PATH="$cli/bin:$PATH" FAASD_RUN="$run" REGION=$region SECRETS_PATH="$1" NODE_PORT=8081 \
            TLS_CERTIFICATE=/own/tls.crt TLS_KEY=/own/tls.key \
            FAASD_BOOT_TRIES=1 AWS_EC2_METADATA_SERVICE_ENDPOINT="http://127.0.0.1:$port" packer/files/faasd-boot
    }
    boot "$path" || code=$?
    cp "$run/secrets.key" "$WORK/key"
    # A second sealing key, as when it is changed: each on a line of its own.
    "$cli/bin/aws" ssm put-parameter --overwrite --name "$path/secrets-key" --value "$(cat "$WORK/key")
$(printf '0%.0s' {1..64})" >/dev/null
    boot "$path" || code=$?
    # A path without secrets must not leave a node that looks ready.
    if boot /nowhere 2>"$WORK/boot-said"; then
        code=1
        echo "it went on without secrets"
    fi
    [ "$code" -eq 0 ] || return "$code"
    grep -q 'no /nowhere/secrets-key in the parameter store' "$WORK/boot-said"
    diff <(cd "$run" && stat -c '%n %a' . ./*) - <<'EOT'
. 700
./fleet.secret 600
./node.env 600
./secrets.key 600
./tls.crt 600
./tls.key 600
EOT
    [ "$(grep -cx '[0-9a-f]\{64\}' "$run/secrets.key")" -eq 2 ]
    diff "$run/tls.crt" <(cat "$WORK/crt" && echo)
    grep -qx 'FAASD_FLEET__ADVERTISE=10.71.16.9:8081' "$run/node.env"
    grep -q '^FAASD_REDIS__PASSWORD=[A-Za-z0-9]\{64\}$' "$run/node.env"
}
if [ -f "$WORK/fleet.json" ]; then
    check "a node boots: secrets, address, certificate" boots
fi

# With an executable at hand, its own judgement of the configuration that Terraform writes, and of the tables.
faasd="${FAASD:-}"
if [ -z "$faasd" ]; then
    ignored "configuration and tables against the daemon" "no executable: FAASD=target/debug/faasd make deploy-test"
else
    for run in "${runs[@]}"; do
        [ -f "$WORK/$run.json" ] || continue
        check "configuration of $run as the daemon reads it" python3 scripts/deploy-look.py configuration "$WORK/$run.json" "$faasd"
    done
    if "$faasd" admin create-tables --help >/dev/null 2>&1; then
        check "tables as the daemon makes them" env FAASD="$faasd" "$tools/bin/python" scripts/deploy-look.py tables "$WORK/fleet.json"
    else
        ignored "tables as the daemon makes them" "$faasd has no admin create-tables"
    fi
fi
checks_end
