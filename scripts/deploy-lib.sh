# shellcheck shell=bash disable=SC2034
# Sourced by the checks of what deploys faasd: counts results, and finds Terraform with its provider where the machine has them.

# Each check ends in one line, which begins with what is checked. What can't be run here is `ignored`, with its reason, and never `ok`.
CHECKS_OF="${CHECKS_OF:-deploy}" CHECKS_OK=0 CHECKS_FAILED=0 CHECKS_IGNORED=0

# `check NAME COMMAND…`: runs it; what it said is shown if it fails.
check() {
    local name="$1" said code
    shift
    # Not as a condition: in one, bash would go on after a command that fails.
    set +e
    said="$(
        set -e
        "$@" 2>&1
    )"
    code=$?
    set -e
    if [ "$code" -eq 0 ]; then
        CHECKS_OK=$((CHECKS_OK + 1))
        echo "$CHECKS_OF $name ... ok"
    else
        CHECKS_FAILED=$((CHECKS_FAILED + 1))
        echo "$CHECKS_OF $name ... FAILED"
        printf '%s\n' "$said" | sed 's/^/    /'
    fi
}

ignored() {
    CHECKS_IGNORED=$((CHECKS_IGNORED + 1))
    echo "$CHECKS_OF $1 ... ignored, $2"
}

# The sum of it, and the exit code.
checks_end() {
    echo "$CHECKS_OF result: $CHECKS_OK ok; $CHECKS_FAILED failed; $CHECKS_IGNORED ignored"
    [ "$CHECKS_FAILED" -eq 0 ]
}

# A directory of our own that is gone when the script ends. Sets WORK.
work_directory() {
    WORK="$(mktemp -d)"
    trap 'rm -rf -- "$WORK"' EXIT
}

# Sets TERRAFORM_MISSING to why Terraform can't be used here, or to nothing, and then points it at the provider that the machine has.
# TF_MIRROR names a mirror by hand.
find_terraform() {
    TERRAFORM_MISSING=""
    # A configuration of the machine's own could name another source.
    unset TF_CLI_CONFIG_FILE
    if ! command -v terraform >/dev/null; then
        TERRAFORM_MISSING="no terraform on this machine"
        return
    fi
    local mirror="${TF_MIRROR:-}" found
    if [ -z "$mirror" ]; then
        found="$(find / -xdev \( -path /proc -o -path /sys -o -path /dev \) -prune -o \
            -path '*/registry.terraform.io/hashicorp/aws/*/terraform-provider-aws*' -print 2>/dev/null |
            grep -v '/\.terraform/' | sort -V | tail -n 1 || true)"
        mirror="${found%/registry.terraform.io/*}"
    fi
    if [ -z "$mirror" ]; then
        TERRAFORM_MISSING="no AWS provider for terraform on this machine"
        return
    fi
    printf 'provider_installation {\n  filesystem_mirror {\n    path = "%s"\n  }\n}\n' "$mirror" >"$WORK/terraformrc"
    export TF_CLI_CONFIG_FILE="$WORK/terraformrc" TF_IN_AUTOMATION=1 CHECKPOINT_DISABLE=1
}
