//! Probes: what code in a sandbox can try with the kernel and with what it sees. Python, below `probes/`; the same files are the control,
//! run by root on the host, where each probe must get what a sandbox may not have.

use std::collections::BTreeMap;
use std::io::Write;
use std::process::{Command, Stdio};

use serde::Deserialize;
use serde_json::{Value, json};

use super::lures::{Lures, TOKEN};
use super::siege::Siege;
use crate::support::archive::zip;
use crate::support::daemon::Daemon;
use crate::support::platform::{merged, zipped};

const PRELUDE: &str = include_str!("probes/prelude.py");

/// Probes of one file, which is a function's `main.py`.
pub struct Group {
    pub test: &'static str,
    file: &'static str,
    source: &'static str,
}

macro_rules! group {
    ($test:ident, $file:literal) => {
        Group { test: stringify!($test), file: $file, source: include_str!(concat!("probes/", $file)) }
    };
}

const KERNEL: Group = group!(the_kernel_s_depths_are_closed, "kernel.py");
const NAMESPACES: Group = group!(no_mount_and_no_namespace_can_be_had, "namespaces.py");
const SOCKETS: Group = group!(no_socket_leads_into_the_kernel, "sockets.py");
const FILES: Group = group!(the_host_s_files_are_out_of_reach, "files.py");
const KERNEL_FILES: Group = group!(the_kernel_s_files_tell_and_change_nothing, "kernel_files.py");
const PROCESSES: Group = group!(the_host_s_processes_are_out_of_reach, "processes.py");
const NETWORK: Group = group!(no_network_leads_out, "network.py");

pub const GROUPS: [Group; 7] = [KERNEL, NAMESPACES, SOCKETS, FILES, KERNEL_FILES, PROCESSES, NETWORK];

impl Group {
    pub fn ids(&self) -> Vec<&'static str> {
        let after = self.source.split("\n@attack(\"").skip(1);
        after.map(|rest| rest.split('"').next().unwrap_or_default()).collect()
    }
}

#[tokio::test]
async fn the_kernel_s_depths_are_closed() {
    assault(&KERNEL).await;
}

#[tokio::test]
async fn no_mount_and_no_namespace_can_be_had() {
    assault(&NAMESPACES).await;
}

#[tokio::test]
async fn no_socket_leads_into_the_kernel() {
    assault(&SOCKETS).await;
}

#[tokio::test]
async fn the_host_s_files_are_out_of_reach() {
    assault(&FILES).await;
}

#[tokio::test]
async fn the_kernel_s_files_tell_and_change_nothing() {
    assault(&KERNEL_FILES).await;
}

#[tokio::test]
async fn the_host_s_processes_are_out_of_reach() {
    assault(&PROCESSES).await;
}

#[tokio::test]
async fn no_network_leads_out() {
    assault(&NETWORK).await;
}

#[derive(Deserialize, Debug)]
pub struct Verdict {
    pub gained: bool,
    /// The control's word that this kernel doesn't have it at all.
    #[serde(default)]
    pub absent: bool,
    pub detail: String,
}

/// Each probe once as root, for it must succeed there, and once in a sandbox, where it must not.
async fn assault(group: &'static Group) {
    let mut siege = Siege::of(Daemon::with("HTTP__METRICS_TOKEN", TOKEN)).await;
    let lures = Lures::lay(&siege.daemon);
    let archive = zip(&[("main.py", group.source.as_bytes()), ("prelude.py", PRELUDE.as_bytes())]);
    let definition = merged(zipped("attack", "python", &archive), json!({ "memoryMb": 256, "timeoutMs": 20_000 }));
    siege.mallory.deploy(definition).await;
    let given = json!({ "calls": calls(), "lures": lures.facts() });
    let as_root = control(group, &given);
    let ids = group.ids();
    assert_eq!(ids.len(), as_root.len(), "every probe is in the control");
    for id in ids {
        let outcome = match &as_root[id] {
            Verdict { gained: false, absent: false, detail, .. } => {
                Err(format!("proves nothing: root doesn't get it either: {detail}"))
            }
            _ => {
                let input = merged(given.clone(), json!({ "attack": id }));
                held(&siege.mallory.run("attack", &input).send().await.expect(200))
            }
        };
        siege.judge(id, outcome).await;
    }
    drop(lures);
    siege.lift();
}

/// Whether a record says that the attacker went away with nothing: told so, or killed for the call itself.
pub fn held(record: &Value) -> Result<(), String> {
    if record["status"] == "SUCCESS" {
        let verdict: Verdict =
            serde_json::from_value(record["result"].clone()).map_err(|e| format!("{e}: {record}"))?;
        return if verdict.gained { Err(format!("gained: {}", verdict.detail)) } else { Ok(()) };
    }
    let killed = record["errorType"] == "Crashed"
        && record["errorMessage"]
            .as_str()
            .is_some_and(|message| message.contains("SIGSYS") || message.contains("system call"));
    if killed { Ok(()) } else { Err(format!("neither refused nor killed for it: {record}")) }
}

/// What the probes get as root, with nothing around them.
fn control(group: &Group, given: &Value) -> BTreeMap<String, Verdict> {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::write(dir.path().join("prelude.py"), PRELUDE).expect("a file");
    std::fs::write(dir.path().join(group.file), group.source).expect("a file");
    let mut command = Command::new("/usr/bin/env");
    command.args(["python3", "-B"]).arg(group.file).current_dir(dir.path());
    let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = child.expect("python3 starts");
    let mut stdin = child.stdin.take().expect("its input");
    stdin.write_all(given.to_string().as_bytes()).expect("it reads");
    drop(stdin);
    let output = child.wait_with_output().expect("it ends");
    let verdicts = serde_json::from_slice(&output.stdout);
    verdicts.unwrap_or_else(|error| panic!("{}: {error}: {output:?}", group.file))
}

macro_rules! numbers {
    ($($name:ident),* $(,)?) => {
        [$((stringify!($name).trim_start_matches("SYS_"), libc::$name)),*]
    };
}

/// Numbers of system calls, from the library: a number mistyped in a probe would be refused everywhere.
fn calls() -> Value {
    let everywhere = numbers![
        SYS_mount,
        SYS_fsopen,
        SYS_open_tree,
        SYS_move_mount,
        SYS_mount_setattr,
        SYS_umount2,
        SYS_pivot_root,
        SYS_chroot,
        SYS_unshare,
        SYS_clone,
        SYS_clone3,
        SYS_setns,
        SYS_pidfd_open,
        SYS_open_by_handle_at,
        SYS_ptrace,
        SYS_process_vm_readv,
        SYS_process_vm_writev,
        SYS_pidfd_getfd,
        SYS_kcmp,
        SYS_keyctl,
        SYS_add_key,
        SYS_request_key,
        SYS_bpf,
        SYS_perf_event_open,
        SYS_userfaultfd,
        SYS_io_uring_setup,
        SYS_kexec_load,
        SYS_init_module,
        SYS_finit_module,
        SYS_delete_module,
        SYS_syslog,
        SYS_sethostname,
        SYS_setdomainname,
        SYS_clock_settime,
        SYS_settimeofday,
        SYS_adjtimex,
        SYS_reboot,
        SYS_swapon,
        SYS_swapoff,
        SYS_acct,
        SYS_quotactl,
        SYS_fanotify_init,
        SYS_move_pages,
        SYS_migrate_pages,
        SYS_personality,
        SYS_setuid,
        SYS_setgid,
        SYS_setgroups,
        SYS_capset,
        SYS_prctl,
        SYS_mknodat,
        SYS_setxattr,
        SYS_ioctl,
        SYS_sched_setscheduler,
        SYS_setpriority,
        SYS_ioprio_set,
        SYS_shmget,
        SYS_mq_open,
        SYS_msgget,
        SYS_semget,
        SYS_kexec_file_load,
    ];
    let mut calls: BTreeMap<&str, i64> = everywhere.into();
    #[cfg(target_arch = "x86_64")]
    calls.extend(numbers![SYS_iopl, SYS_modify_ldt]);
    // Elsewhere there is no such call: a number that no kernel has.
    #[cfg(not(target_arch = "x86_64"))]
    calls.extend([("iopl", -1), ("modify_ldt", -1)]);
    json!(calls)
}
