#!/usr/bin/env bash
# The two commands on a machine that has nothing: makes a minimal Debian 12 root, puts in the Rust toolchain and a clone of this
# repository, enters it and tries. As root; needs mmdebstrap and git. What was seen: docs/trials.md.
#
#   scripts/clean-root.sh [TRIAL…]      the first four unless named; each prints a summary, its whole log stays under WORK
#
#   run                  `make run` with a root of its own, as on a fresh machine: the printed curl pasted, all examples called, Ctrl-C
#   chroot               the same in a plain chroot, to whose processes the kernel refuses user namespaces
#   no-cgroups           the same with no control groups mounted
#   no-user-namespaces   the same where another user namespace may not be made, as in some containers
#   test                 `make test`, whole
#   ci                   `.ci/run`, whole
#
# WORK      where the root is made (default: a new directory under /var/tmp, removed at the end)
# BASE      a root to copy, made by  mmdebstrap --variant=minbase --include=ca-certificates,make bookworm
# OVERLAY   a directory copied over the root: what this network needs to reach Debian and crates.io (CA certificates, apt's settings)
# CRATES    a cargo home whose downloads are copied in, to spare the network; nothing built is
#
# Every trial has mount, pid, uts and ipc namespaces of its own: with its first process all it started and mounted is gone.
set -euo pipefail
script="$(readlink -f "$0")"
cd "$(dirname "$script")/.."

port=18080
# In the control groups' names, to tell this trial's from those of a daemon that runs beside it.
prefix=faasd-clean-root
run_seconds_max=1500
test_seconds_max=3600

make_root() {
    local root=$1 toolchain
    if [ -n "${BASE:-}" ]; then
        cp -a "$BASE" "$root"
    else
        mmdebstrap --variant=minbase --include=ca-certificates,make bookworm "$root"
    fi
    cp -L /etc/resolv.conf "$root/etc/resolv.conf"
    if [ -n "${OVERLAY:-}" ]; then
        cp -a "$OVERLAY/." "$root/"
    fi
    toolchain="$(rustc --print sysroot)"
    mkdir -p "$root/root/.cargo"
    cp -aL "$toolchain" "$root/opt/rust"
    if [ -n "${CRATES:-}" ]; then
        cp -a "$CRATES/registry" "$root/root/.cargo/registry"
    fi
    git clone -q . "$root/root/faasd"
}

# A root that is there already gets the last commit, and keeps what was built and installed.
renew_clone() {
    local root=$1
    git -C "$root/root/faasd" fetch -q "$PWD" HEAD
    git -C "$root/root/faasd" reset -q --hard FETCH_HEAD
    cp "$script" "$root/root/clean-root.sh"
}

# Runs `enter` in namespaces of its own; bounded by the trial's own bounds. In the background, so that a signal finds us at once: the
# first process of a pid namespace, and who waits for it, heed nothing but SIGKILL.
isolated() {
    local trial=$1 root=$2 code=0
    local enter=(unshare --mount --pid --fork --kill-child --uts --ipc "$script" --enter "$trial" "$root")
    if [ "$trial" = no-user-namespaces ]; then
        # A user namespace with the same ids, in which the kernel's limit on further ones can be set for this trial alone.
        local gate="$work/gate"
        rm -f "$gate" && mkfifo "$gate"
        # shellcheck disable=SC2016
        unshare --user bash -c 'read -r _ <"$0"; exec "$@"' "$gate" "${enter[@]}" &
        trial_pid=$!
        while [ "$(readlink "/proc/$trial_pid/ns/user")" = "$(readlink /proc/self/ns/user)" ]; do sleep 0.01; done
        echo "0 0 4294967295" >"/proc/$trial_pid/uid_map"
        echo "0 0 4294967295" >"/proc/$trial_pid/gid_map"
        echo go >"$gate"
    else
        "${enter[@]}" &
        trial_pid=$!
    fi
    wait "$trial_pid" || code=$?
    trial_pid=
    return "$code"
}

# Enters the root as `trial` wants it, in namespaces that `unshare` has just made, and goes on inside.
enter() {
    local trial=$1 root=$2
    if [ "$trial" = chroot ]; then
        # As systemd has it: what the daemon mounts must not be seen out here even so.
        mount --make-rshared /
    else
        mount --bind "$root" "$root"
    fi
    mount -t proc proc "$root/proc"
    mount --rbind /dev "$root/dev"
    if [ "$trial" = no-cgroups ]; then
        mount -t sysfs sysfs "$root/sys"
    else
        mount --rbind /sys "$root/sys"
    fi
    if [ "$trial" = no-user-namespaces ]; then
        echo 0 >/proc/sys/user/max_user_namespaces
    fi
    cd "$root"
    if [ "$trial" != chroot ]; then
        pivot_root . .
        umount -l .
    fi
    exec env -i HOME=/root PATH=/opt/rust/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
        chroot . bash /root/clean-root.sh --inside "$trial"
}

# What a run may leave behind: processes, control groups, mounts, sockets. One thing a line.
traces() {
    local link target
    for link in /proc/[0-9]*/exe; do
        target="$(readlink "$link" || true)"
        [[ "$target" != */faasd* ]] || echo "process ${link//[!0-9]/}: $target"
    done
    find /sys/fs/cgroup -mindepth 2 -path "*/$prefix*" -type d 2>/dev/null || true
    cut -d ' ' -f 1-3 /proc/self/mounts
}

fail() {
    echo "FAILED: $*"
    exit 1
}

# `make run` from outside: as a person at a terminal would.
inside_run() {
    local log=/root/run.log before begun=$SECONDS code=0 answer name
    export LISTEN=127.0.0.1:$port FAASD_SANDBOX__CGROUP_PREFIX=$prefix
    cd /root/faasd
    rm -rf .faasd /root/strict
    : >"$log"
    before="$(traces)"
    # A process group of its own, as at a terminal: Ctrl-C goes to all of it.
    set -m
    # Whoever started this script in the background had it ignore Ctrl-C.
    env --default-signal=INT make run >"$log" 2>&1 &
    local job=$!
    set +m
    until grep -q '^Ctrl-C ends it' "$log"; do
        kill -0 "$job" 2>/dev/null || { cat "$log"; fail "make run ended by itself"; }
        ((SECONDS - begun < run_seconds_max)) || { cat "$log"; fail "not up within $run_seconds_max s"; }
        sleep 1
    done
    echo "up after $((SECONDS - begun)) s"
    grep -E 'installed:|WEAKER|is not available|faasd is up|deployed|not deployed' "$log" || true
    answer="$(grep '^  curl ' "$log" | bash || true)"
    echo "the pasted curl: $(cut -c 1-160 <<<"$answer")"
    [[ "$answer" == *'"status":"SUCCESS"'* ]] || fail "the printed curl does not work: $answer"
    for name in examples/*/; do
        name="$(basename "$name")"
        answer="$(target/release/faasd invoke "$name" '{"name": "Ada"}' --json --url "http://$LISTEN" --data-dir .faasd 2>&1 || true)"
        [[ "$answer" == *'"SUCCESS"'* ]] || fail "$name: $answer"
        echo "$name answers"
    done
    kill -INT -- "-$job"
    wait "$job" || code=$?
    echo "Ctrl-C: $(grep 'faasd::node: stopped' "$log" || tail -n 5 "$log")"
    # Make ends by the signal itself, once its recipe has ended.
    [[ "$code" -eq 130 ]] && grep -q 'faasd::node: stopped' "$log" || fail "it did not end cleanly (code $code)"
    diff <(echo "$before") <(traces) || fail "something is left behind (above)"
    echo "nothing is left behind"
    echo "doctor says:"
    target/release/faasd doctor --url "http://$LISTEN" --data-dir .faasd | grep -v '^ok ' || true
    echo "strict says: $(target/release/faasd --isolation strict --listen 127.0.0.1:0 --data-dir /root/strict 2>&1 &
        strict=$!
        sleep 3
        kill -TERM "$strict" 2>/dev/null || true
        wait "$strict" || true)"
}

inside_test() {
    cd /root/faasd
    timeout "$test_seconds_max" "$@"
}

summary() {
    local trial=$1 log=$2
    case "$trial" in
        test | ci) grep -E '^(== |installed|running|test result|failures:|    [a-z_:]+$|error)' "$log" || tail -n 20 "$log" ;;
        *) cat "$log" ;;
    esac
}

case "${1:-}" in
    --enter) enter "$2" "$3" ;;
    --inside)
        case "$2" in
            test) inside_test make test ;;
            ci) inside_test .ci/run ;;
            *) inside_run ;;
        esac
        exit
        ;;
esac

work="${WORK:-$(mktemp -d /var/tmp/faasd-clean-root.XXXXXX)}"
mkdir -p "$work"
trial_pid=
# A trial that failed, or is ended here, ends its daemon by force, which leaves empty groups.
end() {
    if [ -n "$trial_pid" ]; then
        kill -KILL "$trial_pid" 2>/dev/null || true
        wait "$trial_pid" 2>/dev/null || true
        sleep 1
    fi
    find /sys/fs/cgroup -depth -path "*/$prefix*" -type d -exec rmdir {} + 2>/dev/null || true
    [ -n "${WORK:-}" ] || rm -rf --one-file-system "$work"
}
trap end EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
trials=("$@")
[ $# -gt 0 ] || trials=(run chroot no-cgroups no-user-namespaces)

root="$work/root"
[ -d "$root" ] || make_root "$root"
renew_clone "$root"
failed=0
for trial in "${trials[@]}"; do
    printf '\n== %s\n' "$trial"
    log="$work/$trial.log"
    code=0
    isolated "$trial" "$root" >"$log" 2>&1 || code=$?
    summary "$trial" "$log"
    [ "$code" -eq 0 ] || { failed=1; echo "== $trial failed with code $code"; }
done
exit "$failed"
