#!/usr/bin/env bash
# The quick checks of what deploys faasd, part of `make test`: Terraform, units, image, scripts. Each ends in a line; what this machine
# has no tool for is `ignored`, and said so. `make deploy-test` has the slow ones.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/deploy-lib.sh
. scripts/deploy-lib.sh

# What systemd's own score may be, at most: 0 is shut, 10 is open. It was 7.2 when this was written; systemd/faasd.service has why.
exposure_max=7.2

work_directory

# --- Terraform -------------------------------------------------------------------------------------------------------------------

terraform_validates() {
    local here="$WORK/terraform/$1"
    terraform -chdir="$here" init -no-color -input=false -backend=false
    terraform -chdir="$here" validate -no-color
}
find_terraform
for name in format "module is valid" "example minimal is valid" "example fleet is valid" "promises of the module"; do
    [ -z "$TERRAFORM_MISSING" ] || ignored "terraform: $name" "$TERRAFORM_MISSING"
done
if [ -z "$TERRAFORM_MISSING" ]; then
    cp -r terraform "$WORK/"
    check "terraform: format" terraform fmt -check -diff -recursive terraform scripts/emulator
    check "terraform: module is valid" terraform_validates .
    check "terraform: example minimal is valid" terraform_validates examples/minimal
    check "terraform: example fleet is valid" terraform_validates examples/fleet
    check "terraform: promises of the module" terraform -chdir="$WORK/terraform" test -no-color
fi

# A NAT gateway costs more than a fleet. So that the pattern can't miss everything, it must find what is there.
has_no_nat_gateway() {
    grep -rq '"aws_internet_gateway"' terraform && ! grep -rn 'aws_nat_gateway' terraform
}
check "terraform: no NAT gateway" has_no_nat_gateway

every_permission_has_its_reason() {
    local sids documented
    sids="$(sed -n 's/^ *Sid *= *"\([A-Za-z]*\)".*/\1/p' terraform/iam.tf | sort -u)"
    sids="$(printf '%s\nTlsCertificate\nTlsKey\n' "$sids" | sort -u)"
    # shellcheck disable=SC2016 # Backticks of the page.
    documented="$(sed -n 's/^| `\([A-Za-z]*\)` |.*/\1/p' docs/iam.md | sort -u)"
    [ "$(wc -l <<<"$sids")" -gt 10 ] && diff <(echo "$sids") <(echo "$documented")
}
check "iam: every permission has its reason in docs/iam.md" every_permission_has_its_reason

every_alarm_is_explained() {
    local alarms name
    alarms="$(sed -n '/^  alarms = merge/,/^  )/s/^ \{6\}"\{0,1\}\([a-z][a-z-]*[a-z]\)[^=]*= {.*/\1/p' terraform/alarms.tf; grep -o 'throttled-writes' terraform/alarms.tf)"
    echo "$alarms"
    [ "$(wc -l <<<"$alarms")" -ge 7 ] || return 1
    for name in $alarms; do
        grep -q "^| \`$name" docs/operations.md || { echo "docs/operations.md does not explain $name"; return 1; }
    done
}
check "alarms: every one is explained in docs/operations.md" every_alarm_is_explained

every_alert_is_explained() {
    local alerts name
    alerts="$(sed -n 's/^ *- alert: //p' config/alerts.yaml observability/rules.yaml)"
    [ "$(wc -l <<<"$alerts")" -gt 10 ]
    for name in $alerts; do
        grep -q "^| .*\`$name\`.* |" docs/operations.md || { echo "docs/operations.md does not explain $name"; return 1; }
    done
}
check "alerts: every one is explained in docs/operations.md" every_alert_is_explained

# --- Units -----------------------------------------------------------------------------------------------------------------------

# systemd-analyze ends with 0 even where it warns; and it wants the executable to be there.
units_are_silent() {
    local said
    mkdir -p "$WORK/units"
    for unit in systemd/*.service; do
        sed -E 's#^ExecStart=\S+#ExecStart=/bin/true#' "$unit" >"$WORK/units/${unit##*/}"
    done
    # As on a fleet's node too.
    mkdir -p "$WORK/units/faasd-worker.service.d"
    sed -E 's#^ExecStartPre=\S+#ExecStartPre=+/bin/true#' packer/files/10-fleet.conf >"$WORK/units/faasd-worker.service.d/10-fleet.conf"
    [ -z "${1:-}" ] || echo "$1" >>"$WORK/units/faasd.service"
    # All in one place, or one unit does not find another.
    said="$(SYSTEMD_UNIT_PATH="$WORK/units:" systemd-analyze verify --man=no "$WORK"/units/*.service 2>&1)"
    echo "$said"
    [ -z "$said" ]
}
a_wrong_unit_is_seen() {
    ! units_are_silent "Watchdog=30"
}
exposure() {
    local score
    score="$(systemd-analyze security --offline=true --no-pager "$WORK/units/faasd.service" | sed -n 's/.*exposure level.*: \([0-9.]*\).*/\1/p')"
    echo "exposure $score, at most $exposure_max"
    [ -n "$score" ] && awk "BEGIN { exit !($score <= $exposure_max) }"
}
if command -v systemd-analyze >/dev/null; then
    check "units: a wrong one is seen" a_wrong_unit_is_seen
    check "units: nothing to complain about" units_are_silent
    check "units: exposure" exposure
else
    for name in "a wrong one is seen" "nothing to complain about" exposure; do
        ignored "units: $name" "no systemd-analyze on this machine"
    done
fi

# The three are one but for what each says of itself.
units_are_alike() {
    local unit
    settings() { grep -Ev '^(#|$|Description=|Conflicts=|TimeoutStopSec=)' "$1" | sed 's#/etc/faasd/[a-z]*\.toml#FILE#'; }
    for unit in controller worker; do
        diff <(settings systemd/faasd.service) <(settings "systemd/faasd-$unit.service") || return 1
    done
}
check "units: all three are alike" units_are_alike

# The time to stop must be above the time to drain, for each role's own file, or for the default.
stop_is_above_drain() {
    local unit file drain stop default
    drain_of() { sed -n 's/^drain_ms = //p' "$1"; }
    default="$(drain_of config/faasd.toml)"
    for pair in faasd:both faasd-controller:controller faasd-worker:worker; do
        unit="${pair%:*}" file="config/${pair#*:}.toml"
        drain="$(drain_of "$file")"
        stop="$(sed -n 's/^TimeoutStopSec=//p' "systemd/$unit.service")"
        [ "$((stop * 1000))" -gt "$((${drain:-$default} + 10000))" ] || { echo "$unit: stops after $stop s, drains ${drain:-$default} ms"; return 1; }
    done
}
check "units: time to stop is above time to drain" stop_is_above_drain

# --- Metrics ---------------------------------------------------------------------------------------------------------------------

scrapes_are_valid() {
    cp -r observability config "$WORK/"
    echo token >"$WORK/observability/faasd.token"
    promtool check config "$WORK/observability/prometheus.yaml"
}
if command -v promtool >/dev/null; then
    check "metrics: configuration of Prometheus" scrapes_are_valid
    check "metrics: rules do what they say" promtool test rules observability/rules_test.yaml
else
    ignored "metrics: configuration of Prometheus" "no promtool on this machine"
    ignored "metrics: rules do what they say" "no promtool on this machine"
fi
faasd="${FAASD:-${CARGO_TARGET_DIR:-target}/debug/faasd}"
if ! command -v prometheus >/dev/null; then
    ignored "metrics: every expression of the dashboards" "no prometheus on this machine"
elif [ ! -x "$faasd" ]; then
    ignored "metrics: every expression of the dashboards" "no executable at $faasd: cargo build, or FAASD=…"
else
    check "metrics: every expression of the dashboards" env "FAASD=$faasd" python3 scripts/deploy-dashboards.py
fi

# --- Image and scripts -----------------------------------------------------------------------------------------------------------

# Packer before 1.7 knows neither its own plugins by name nor how a builder's metadata is closed.
image_is_valid() {
    mkdir -p "$WORK/image"
    cp -r packer systemd config examples "$WORK/image/"
    rm "$WORK/image/packer/plugins.pkr.hcl"
    sed -i '/^  metadata_options {/,/^  }/d; /imds_support/d' "$WORK/image/packer/faasd.pkr.hcl"
    touch "$WORK/image/faasd"
    (cd "$WORK/image/packer" && CHECKPOINT_DISABLE=1 packer validate \
        -var executable_x86_64=../faasd -var executable_arm64=../faasd \
        -var version=0 -var digest_x86_64=0 -var digest_arm64=0 "$@" .)
}
an_unknown_variable_is_seen() {
    local said
    if said="$(image_is_valid -var colour=red 2>&1)"; then
        return 1
    fi
    grep -q colour <<<"$said"
}
if command -v packer >/dev/null; then
    check "image: packer accepts it" image_is_valid
    check "image: packer refuses what is wrong" an_unknown_variable_is_seen
else
    ignored "image: packer accepts it" "no packer on this machine"
    ignored "image: packer refuses what is wrong" "no packer on this machine"
fi

scripts_are_sound() {
    shellcheck -x -S warning scripts/deploy-*.sh scripts/vm-*.sh packer/build.sh packer/scripts/*.sh packer/files/faasd-boot packaging/*.sh packaging/debian/*
}
if command -v shellcheck >/dev/null; then
    check "scripts: shellcheck" scripts_are_sound
else
    ignored "scripts: shellcheck" "no shellcheck on this machine"
fi

checks_end
