#!/usr/bin/env bash
# Inside the machine of scripts/vm-test.sh, as its only service beside the system's own: installs faasd, runs its units under the real
# systemd, and looks. Each check ends in a line, with what was seen below it.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck disable=SC2034 # of deploy-lib.sh
CHECKS_OF=vm
# shellcheck source=scripts/deploy-lib.sh
. scripts/deploy-lib.sh
work_directory

unit=faasd.service
groups=/sys/fs/cgroup/system.slice/$unit
# In the environment of one function and in the payload of a call: neither may be in the journal.
secret_value=s3cret-of-the-environment secret_payload=s3cret-of-the-payload
wait_seconds_max=180

# --- Words -----------------------------------------------------------------------------------------------------------------------

# Shown below the check's line, whether it passes or not.
seen() { echo "    $*" >>"$WORK/seen"; }
try() {
    : >"$WORK/seen"
    check "$@"
    cat "$WORK/seen"
}

key() { FAASD_API_KEY="$(cat /var/lib/faasd/admin.key)" "$@"; }
invoke() { key faasd invoke --json "$@"; }
# A field of the record on stdin; `a.b` goes down.
field() {
    python3 -c '
import functools, json, sys
value = functools.reduce(lambda value, key: value[key], sys.argv[1].split("."), json.load(sys.stdin))
print(value if isinstance(value, str) else json.dumps(value))' "$1"
}
property() { systemctl show --property="$1" --value "$unit"; }
main_pid() { property MainPID; }

# `within SECONDS COMMAND…`: tries it until it succeeds.
within() {
    local end=$((SECONDS + $1))
    shift
    until "$@"; do
        [ "$SECONDS" -lt "$end" ] || { echo "not within its time: $*"; return 1; }
        sleep 0.5
    done
}

is_called() {
    local record
    record="$(invoke "$1" '{"name": "Ada"}')" || { echo "$record"; return 1; }
    [ "$(field status <<<"$record")" = SUCCESS ] || { echo "$record"; return 1; }
    seen "$1: $(field result.message <<<"$record") $(field startType <<<"$record"), $(field durationMs <<<"$record") ms"
}
serves() { [ "$(property SubState)" = running ] && [ "$(systemctl is-active "$unit")" = active ]; }
serves_as_another_than() { serves && [ "$(main_pid)" != "$1" ]; }

# Groups of sandboxes below the unit, one a line.
sandbox_groups() { find "$groups/faasd" -mindepth 2 -maxdepth 2 -type d 2>/dev/null | sort; }
# Processes that run as a sandbox's own id.
sandbox_processes() { ps -e -o uid=,pid=,args= | awk '$1 >= 100000'; }

deploy() {
    local name="$1"
    shift
    mkdir -p "$WORK/$name"
    cat >"$WORK/$name/main.py"
    key faasd deploy "$WORK/$name" --name "$name" "$@"
}

# --- The machine -----------------------------------------------------------------------------------------------------------------

is_pure_v2() {
    seen "$(uname -sr), $(systemctl --version | head -n 1), $(nproc) processors, $(awk '/MemTotal/ { print int($2 / 1024) }' /proc/meminfo) MiB"
    [ "$(stat -f -c %T /sys/fs/cgroup)" = cgroup2fs ]
    [ -z "$(grep ' - cgroup ' /proc/self/mountinfo || true)" ]
    seen "/sys/fs/cgroup: cgroup2, $(cat /sys/fs/cgroup/cgroup.controllers)"
}

# A processor that is emulated in software is tens of times slower: what is bounded in time must be given it.
is_given_time() {
    cat >>/etc/faasd/environment <<'EOT'
FAASD_SANDBOX__START_TIMEOUT_MS=120000
FAASD_SANDBOX__INIT_TIMEOUT_MS=120000
FAASD_HTTP__SYNC_WAIT_EXTRA_MS=240000
FAASD_POOL__QUEUE_WAIT_MS=240000
FAASD_POOL__PREWARMED_PYTHON=1
FAASD_POOL__PREWARMED_NODEJS=0
FAASD_POOL__PREWARMED_NATIVE=0
EOT
}
package_is_installed() {
    dpkg -i /root/faasd.deb
    is_given_time
    [ "$(systemctl is-enabled "$unit" || true)" = disabled ]
    ! systemctl is-active "$unit"
}

units_are_sound() {
    local said
    said="$(systemd-analyze verify --man=no faasd.service faasd-controller.service faasd-worker.service 2>&1)"
    echo "$said"
    [ -z "$said" ]
}

# There are no compilers in here; nothing else may be amiss but what is named.
doctor_is_content() {
    local amiss
    faasd doctor --json >"$WORK/doctor" || true
    amiss="$(python3 -c '
import json, sys
for check in json.load(open(sys.argv[1]))["checks"]:
    if check["state"] != "good":
        print(check["name"])' "$WORK/doctor" | sort | tr '\n' ' ')"
    seen "not good: $amiss"
    [ "$amiss" = "$1" ] || { cat "$WORK/doctor"; return 1; }
    # What it made for its trial is gone, and nobody was moved.
    [ -z "$(find /sys/fs/cgroup -path "$groups" -prune -o -type d \( -name faasd -o -name daemon \) -print)" ]
}

# --- The unit --------------------------------------------------------------------------------------------------------------------

starts() {
    systemctl start "$unit"
    seen "$(property StatusText); Type=$(property Type), Restart=$(property Restart), WatchdogUSec=$(property WatchdogUSec)"
    [[ "$(property StatusText)" == "serves at 127.0.0.1:8080" ]]
    serves
}

isolation_is_whole() { ! journalctl --no-pager -u "$unit" | grep -i 'weaker'; }

stands_in_a_leaf() {
    local own listed
    own="$(sed 's/^0:://' "/proc/$(main_pid)/cgroup")"
    seen "the daemon's group: $own"
    [ "$own" = "/system.slice/$unit/daemon" ]
    [ -z "$(cat "$groups/cgroup.procs")" ]
    [ -z "$(cat "$groups/daemon/cgroup.subtree_control")" ]
    for group in "$groups" "$groups/faasd"; do
        listed="$(cat "$group/cgroup.subtree_control")"
        seen "handed down by ${group#/sys/fs/cgroup}: $listed"
        for controller in cpu io memory pids; do
            [[ " $listed " == *" $controller "* ]] || { echo "no $controller in $group"; return 1; }
        done
    done
}

examples_answer() {
    for name in hello-python hello-nodejs; do
        key faasd deploy "examples/$name"
        is_called "$name"
        is_called "$name"
    done
}

usage_is_told() {
    local record peak cpu
    deploy busy --memory 256 --timeout 120000 <<'PY'
import time

def handler(event, context):
    held = bytearray(event["mib"] << 20)
    for at in range(0, len(held), 4096):
        held[at] = 1
    begun = time.process_time()
    while time.process_time() - begun < event["s"]:
        pass
    return len(held)
PY
    record="$(invoke busy '{"mib": 64, "s": 0.5}')"
    peak="$(field peakMemoryBytes <<<"$record")" cpu="$(field cpuUs <<<"$record")"
    seen "64 MiB held and 0.5 s of processor time used: peak $((peak >> 20)) MiB, $((cpu / 1000)) ms, throttled $(($(field throttledUs <<<"$record") / 1000)) ms"
    [ "$peak" -gt $((64 << 20)) ] && [ "$peak" -lt $((160 << 20)) ]
    [ "$cpu" -ge 500000 ]
    # The next call in the same sandbox has a peak of its own.
    record="$(invoke busy '{"mib": 1, "s": 0.2}')"
    seen "1 MiB and 0.2 s in the same sandbox ($(field startType <<<"$record")): peak $(($(field peakMemoryBytes <<<"$record") >> 20)) MiB"
    [ "$(field startType <<<"$record")" = WARM ]
    [ "$(field peakMemoryBytes <<<"$record")" -lt "$peak" ]
}

limits_are_the_kernels() {
    local group found=""
    for group in $(sandbox_groups); do
        [ "$(cat "$group/memory.max")" = $((256 << 20)) ] || continue
        found="$group"
        seen "memory.max $(cat "$group/memory.max"), memory.oom.group $(cat "$group/memory.oom.group"), pids.max $(cat "$group/pids.max"), cpu.max $(cat "$group/cpu.max"), cpu.weight $(cat "$group/cpu.weight")"
        [ "$(cat "$group/memory.oom.group")" = 1 ]
        [ "$(cat "$group/pids.max")" -le 200 ]
        [[ "$(cat "$group/cpu.max")" != max* ]]
    done
    [ -n "$found" ]
}

# `ends_as STATUS ERROR FUNCTION PAYLOAD`
ends_as() {
    local record
    record="$(invoke "$3" "$4")" && { echo "it succeeded: $record"; return 1; }
    seen "$(field status <<<"$record") $(field errorType <<<"$record"): $(field errorMessage <<<"$record")"
    echo "$record"
    [ "$(field status <<<"$record")" = "$1" ] && [ "$(field errorType <<<"$record")" = "$2" ]
}
out_of_memory_is_told() {
    deploy glutton --memory 64 --timeout 120000 <<'PY'
def handler(event, context):
    held = []
    while True:
        held.append(bytearray(4 << 20))
PY
    ends_as FAILED OutOfMemory glutton '{}'
    serves && is_called hello-python
}
timeout_is_told() {
    deploy sleeper --memory 64 --timeout 3000 <<'PY'
import time

def handler(event, context):
    print("begun", flush=True)
    time.sleep(event.get("s", 600))
    return {"message": "slept"}
PY
    ends_as TIMEOUT Timeout sleeper '{}'
    serves && is_called hello-python
}
forks_are_bounded() {
    local record
    deploy forker --memory 128 --timeout 60000 <<'PY'
import os, time

def handler(event, context):
    made = 0
    try:
        while True:
            if os.fork() == 0:
                time.sleep(600)
            made += 1
    except OSError as error:
        return {"made": made, "error": str(error)}
PY
    record="$(invoke forker '{}')"
    seen "$(field result <<<"$record")"
    [ "$(field result.made <<<"$record")" -lt 200 ]
    within 60 forks_are_gone
}
forks_are_gone() { [ "$(sandbox_processes | wc -l)" -lt 60 ]; }

# --- Ends and new beginnings -----------------------------------------------------------------------------------------------------

# `none_lives_of PIDS`: of an earlier daemon's sandboxes.
none_lives_of() {
    local pid
    for pid in $1; do
        [ ! -d "/proc/$pid" ] || { echo "pid $pid of the earlier daemon's sandboxes lives"; return 1; }
    done
}
pids_of_sandboxes() { sandbox_processes | awk '{ print $2 }'; }

restart_lets_a_call_finish() {
    local before pid
    key faasd deploy "$WORK/sleeper" --name long --memory 64 --timeout 60000
    pid="$(main_pid)" before="$(pids_of_sandboxes)"
    invoke long '{"s": 8}' >"$WORK/long" &
    local call=$!
    within 60 a_call_is_under_way
    systemctl restart "$unit"
    wait "$call" || { cat "$WORK/long"; return 1; }
    seen "the call under way: $(field status <<<"$(cat "$WORK/long")"), result $(field result.message <<<"$(cat "$WORK/long")")"
    within "$wait_seconds_max" serves_as_another_than "$pid"
    none_lives_of "$before"
    is_called hello-python
}
a_call_is_under_way() { ! key faasd workers --json | grep -Eq '"active": *0\b'; }

kill_is_survived() {
    local pid before job restarts
    job="$(key faasd invoke long '{"s": 5}' --async)"
    job="${job##* }"
    within 60 a_call_is_under_way
    pid="$(main_pid)" before="$(pids_of_sandboxes)" restarts="$(property NRestarts)"
    kill -KILL "$pid"
    within "$wait_seconds_max" serves_as_another_than "$pid"
    [ "$(property NRestarts)" -gt "$restarts" ]
    none_lives_of "$before"
    is_called hello-python
    key faasd status "$job" --wait --json >"$WORK/job" || { cat "$WORK/job"; return 1; }
    seen "accepted before the end: $(field status <"$WORK/job"), attempt $(field attempt <"$WORK/job")"
    [ "$(field status <"$WORK/job")" = SUCCESS ]
}

watchdog_bites() {
    local pid before begun=$SECONDS
    pid="$(main_pid)" before="$(pids_of_sandboxes)"
    kill -STOP "$pid"
    within "$wait_seconds_max" serves_as_another_than "$pid"
    seen "stopped, and another serves after $((SECONDS - begun)) s: $(journalctl --no-pager -o cat -u "$unit" | grep -i 'watchdog' | tail -n 1)"
    journalctl --no-pager -o cat -u "$unit" | grep -q 'Watchdog timeout'
    none_lives_of "$before"
    is_called hello-python
}

launcher_is_replaced() {
    local launcher pid
    pid="$(main_pid)"
    launcher="$(pgrep -f 'faasd sandbox-launcher' | head -n 1)"
    kill -KILL "$launcher"
    within "$wait_seconds_max" is_called hello-python
    [ "$(main_pid)" = "$pid" ]
}

tree_is_clean() {
    local strange
    # Whatever systemd thinks anew, what was delegated is not its affair.
    systemctl daemon-reload
    stands_in_a_leaf
    # One instance, and nothing beside it.
    strange="$(find "$groups" -mindepth 1 -maxdepth 1 -type d ! -name daemon ! -name faasd)"
    [ -z "$strange" ] || { echo "$strange"; return 1; }
    [ "$(find "$groups/faasd" -mindepth 1 -maxdepth 1 -type d | wc -l)" = 1 ]
    # No group has been left to nobody: the pool has as many as there are.
    seen "$(sandbox_groups | wc -l) groups of sandboxes, $(sandbox_processes | wc -l) processes in them"
    strange="$(find /sys/fs/cgroup -type d -name 'faasd' ! -path "$groups/*")"
    [ -z "$strange" ] || { echo "$strange"; return 1; }
}

journal_has_no_secret() {
    local journal admin
    admin="$(cat /var/lib/faasd/admin.key)"
    key faasd deploy "$WORK/sleeper" --name secretive --env "TOKEN=$secret_value"
    invoke secretive "{\"s\": 0, \"password\": \"$secret_payload\"}" >"$WORK/record"
    journal="$(journalctl --no-pager -o cat)"
    seen "$(journalctl --no-pager -u "$unit" | wc -l) lines of the unit"
    for secret in "$admin" "$secret_value" "$secret_payload"; do
        ! grep -qF -- "$secret" <<<"$journal" || { grep -F -- "$secret" <<<"$journal"; return 1; }
    done
}
# But for the one that was asked for.
journal_has_no_error() { ! journalctl --no-pager -o cat -u "$unit" | grep '"level":"ERROR"' | grep -v '"launcher died, starting another"'; }

stops() {
    systemctl stop "$unit"
    seen "Result=$(property Result), ExecMainStatus=$(property ExecMainStatus)"
    [ "$(property Result)" = success ] && [ "$(property ExecMainStatus)" = 0 ]
    local left
    left="$(find /sys/fs/cgroup -type d -name 'faasd*'; sandbox_processes; pgrep -af '/usr/bin/faasd' || true; find /tmp -maxdepth 1 -name 'faasd-*')"
    [ -z "$left" ] || { echo "left behind: $left"; return 1; }
}

# --- Without the package ---------------------------------------------------------------------------------------------------------

package_goes() {
    dpkg -P faasd
    [ ! -e /usr/bin/faasd ] && [ ! -e /etc/faasd/faasd.toml ] && [ -d /var/lib/faasd ]
}
installs_without_a_package() {
    # As where there is neither package nor the tools for one.
    mkdir "$WORK/away"
    mv /usr/bin/dpkg* /usr/bin/apt* "$WORK/away/"
    packaging/install.sh /root/faasd.executable
    mv "$WORK"/away/* /usr/bin/
    [ "$(stat -c '%a %U:%G' /etc/faasd /etc/faasd/environment /run/faasd | tr '\n' ' ')" = "750 root:faasd 600 root:root 700 root:root " ]
    is_given_time
    systemctl start "$unit"
    # The functions of before are still there.
    is_called hello-python
    # An update of what runs.
    local pid
    pid="$(main_pid)"
    packaging/install.sh /root/faasd.executable
    serves_as_another_than "$pid"
    is_called hello-python
    systemctl stop "$unit"
    [ ! -e "$groups" ]
}

try "the machine has pure cgroup v2" is_pure_v2
try "the package is installed, and starts nothing" package_is_installed
try "units have nothing to complain about" units_are_sound
try "doctor is content, but for the daemon" doctor_is_content "daemon runtime cpp runtime go "
try "the unit starts, and is ready when it says so" starts
try "isolation is whole" isolation_is_whole
try "doctor is content" doctor_is_content "runtime cpp runtime go "
try "examples answer" examples_answer
try "the daemon stands in a leaf and hands controllers down" stands_in_a_leaf
try "a record has what its call used" usage_is_told
try "limits are the kernel's" limits_are_the_kernels
try "out of memory is told" out_of_memory_is_told
try "a timeout is told" timeout_is_told
try "forks are bounded" forks_are_bounded
try "a restart lets a call finish" restart_lets_a_call_finish
try "kill -9 is survived" kill_is_survived
try "a daemon that stands still is restarted by the watchdog" watchdog_bites
try "a launcher that dies is replaced" launcher_is_replaced
try "the delegated tree is clean" tree_is_clean
try "the journal has no secret" journal_has_no_secret
try "the journal has no error" journal_has_no_error
try "a stop leaves nothing" stops
try "the package goes" package_goes
try "install.sh does without a package" installs_without_a_package
checks_end
