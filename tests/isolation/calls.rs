//! System calls: which are refused, which end the sandbox, that both are counted, and what Landlock refuses.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::daemon::{Builder, Daemon};
use crate::support::surroundings::Surroundings;

/// Makes system calls by number: each event entry is a number and its arguments, each answer the errno or 0.
const CALL: &str = r#"
import ctypes, os, threading, time
libc = ctypes.CDLL(None, use_errno=True)
def call(number, *arguments):
    ctypes.set_errno(0)
    libc.syscall(ctypes.c_long(number), *[ctypes.c_long(argument) for argument in arguments])
    return ctypes.get_errno()
def handler(event, context):
    if 'child' in event:
        child = os.fork()
        if child == 0:
            call(*event['child'])
            os._exit(0)
        os.waitpid(child, 0)
        time.sleep(5)
    if 'machine' in event:
        import mmap
        code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        code.write(bytes.fromhex(event['machine']))
        return ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))()
    if 'flood' in event:
        made, end = [0], time.monotonic() + event['seconds']
        def flood():
            while time.monotonic() < end:
                call(*event['flood'])
                made[0] += 1
        threads = [threading.Thread(target=flood) for _ in range(8)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        return made[0]
    return {name: call(*arguments) for name, arguments in event.items()}
"#;

const EPERM: i32 = libc::EPERM;

fn refused_calls() -> Value {
    const NEW_USER: i64 = libc::CLONE_NEWUSER as i64;
    json!({
        "unshare": [libc::SYS_unshare, NEW_USER],
        "clone": [libc::SYS_clone, NEW_USER | libc::SIGCHLD as i64, 0, 0, 0, 0],
        "setuid": [libc::SYS_setuid, 0],
        "chroot": [libc::SYS_chroot, 0],
        "mknodat": [libc::SYS_mknodat, -100, 0, 0o60600, 1],
        "keyctl": [libc::SYS_keyctl, 0, -3, 1],
        "add_key": [libc::SYS_add_key, 0, 0, 0, 0, -3],
        "io_uring_setup": [libc::SYS_io_uring_setup, 8, 0],
        "syslog": [libc::SYS_syslog, 3, 0, 0],
        "personality": [libc::SYS_personality, 0x40000],
        "seccomp": [libc::SYS_seccomp, 1, 0, 0],
        "prctl": [libc::SYS_prctl, libc::PR_SET_SECCOMP, 2, 0],
        "ioctl": [libc::SYS_ioctl, 0, libc::TIOCSTI, 0],
        "socketpair": [libc::SYS_socketpair, libc::AF_INET, libc::SOCK_STREAM, 0, 0],
    })
}

#[tokio::test]
async fn refused_calls_fail_with_eperm_and_are_counted_by_name() {
    let daemon = Daemon::start().await;
    daemon.deploy_python("f", CALL).await;
    let calls = refused_calls();
    let seen = daemon.result("f", &calls).await;
    let metrics = daemon.metrics().await;
    for name in calls.as_object().expect("calls").keys() {
        assert_eq!(seen[name], EPERM, "{name}");
        let counted = metrics.sum("faasd_sandbox_refused_calls_total", &[&format!("call=\"{name}\"")]);
        assert!(counted >= 1.0, "{name} was counted {counted} times");
    }
    assert_eq!(daemon.call("f", &calls).await["startType"], "WARM", "a refusal is an answer like any other");
}

#[tokio::test]
async fn sockets_but_local_ones_tcp_udp_and_the_list_of_interfaces_are_refused() {
    let daemon = Daemon::start().await;
    daemon.deploy_python("f", CALL).await;
    let socket = |family: i32, kind: i32, protocol: i32| json!([libc::SYS_socket, family, kind, protocol]);
    let (stream, datagram, raw) = (libc::SOCK_STREAM, libc::SOCK_DGRAM, libc::SOCK_RAW);
    let refused = json!({
        "raw icmp": socket(libc::AF_INET, raw, libc::IPPROTO_ICMP),
        "raw v6": socket(libc::AF_INET6, raw, 255),
        "ping": socket(libc::AF_INET, datagram, libc::IPPROTO_ICMP),
        "packet": socket(libc::AF_PACKET, raw, 0x300),
        "packet, cooked": socket(libc::AF_PACKET, datagram, 0x300),
        "vsock": socket(libc::AF_VSOCK, stream, 0),
        "crypto": socket(libc::AF_ALG, libc::SOCK_SEQPACKET, 0),
        "uevents": socket(libc::AF_NETLINK, raw, libc::NETLINK_KOBJECT_UEVENT),
        "audit": socket(libc::AF_NETLINK, raw, libc::NETLINK_AUDIT),
        "netfilter": socket(libc::AF_NETLINK, raw, libc::NETLINK_NETFILTER),
        "can": socket(libc::AF_CAN, raw, 1),
        "bluetooth": socket(libc::AF_BLUETOOTH, raw, 1),
        "sctp": socket(libc::AF_INET, stream, libc::IPPROTO_SCTP),
    });
    let seen = daemon.result("f", &refused).await;
    for (name, error) in seen.as_object().expect("answers") {
        assert_eq!(*error, EPERM, "{name}");
    }
    let allowed = json!({
        "local": socket(libc::AF_UNIX, stream | libc::SOCK_CLOEXEC, 0),
        "tcp": socket(libc::AF_INET, stream, 0),
        "udp": socket(libc::AF_INET6, datagram, libc::IPPROTO_UDP),
        "routes": socket(libc::AF_NETLINK, raw, libc::NETLINK_ROUTE),
    });
    let seen = daemon.result("f", &allowed).await;
    assert!(seen.as_object().expect("answers").values().all(|error| error == 0), "{seen}");
}

/// Ends a sandbox by `event`, sees that it is said why, and that the next call is served.
async fn ends(daemon: &Daemon, event: Value, name: &str) {
    let record = daemon.call("f", &event).await;
    assert_eq!((&record["status"], &record["errorType"]), (&json!("FAILED"), &json!("Crashed")), "{name}: {record}");
    let message = format!("killed: it made the forbidden system call {name}");
    assert_eq!(record["errorMessage"], message, "{record}");
    let labels = format!("call=\"{name}\"");
    assert!(daemon.metrics().await.sum("faasd_sandbox_forbidden_calls_total", &[&labels]) >= 1.0, "{name}");
    assert_eq!(daemon.result("f", &json!({ "getpid": [libc::SYS_getpid] })).await["getpid"], 0, "after {name}");
}

#[tokio::test]
async fn a_forbidden_call_ends_the_sandbox_and_is_named_and_counted() {
    let daemon = Daemon::start().await;
    daemon.deploy_python("f", CALL).await;
    for (name, number) in [
        ("ptrace", libc::SYS_ptrace),
        ("mount", libc::SYS_mount),
        ("setns", libc::SYS_setns),
        ("bpf", libc::SYS_bpf),
        ("open_by_handle_at", libc::SYS_open_by_handle_at),
        ("process_vm_readv", libc::SYS_process_vm_readv),
    ] {
        ends(&daemon, json!({ name: [number, 0, 0, 0, 0, 0] }), name).await;
    }
    let child = json!({ "child": [libc::SYS_init_module, 0, 0, 0] });
    ends(&daemon, child, "init_module").await;
}

/// The number of seccomp(2) in [`Surroundings::Listened`] is this machine's.
#[cfg(target_arch = "x86_64")]
#[tokio::test]
async fn where_nobody_can_listen_the_same_calls_are_refused_uncounted() {
    let daemon = Builder::default().inside(Surroundings::Listened).start().await;
    daemon.deploy_python("f", CALL).await;
    let seen = daemon.result("f", &refused_calls()).await;
    assert!(seen.as_object().expect("answers").values().all(|error| *error == EPERM), "{seen}");
    let record = daemon.call("f", &json!({ "ptrace": [libc::SYS_ptrace, 0, 0, 0, 0] })).await;
    assert_eq!(record["errorMessage"], "killed by signal 31 (SIGSYS)", "{record}");
    assert_eq!(daemon.metrics().await.sum("faasd_sandbox_refused_calls_total", &[]), 0.0);
    assert!(daemon.log().contains("refused system calls are not counted"), "{}", daemon.log());
}

#[cfg(target_arch = "x86_64")]
#[tokio::test]
async fn calls_by_the_other_interfaces_of_the_processor_end_the_sandbox() {
    let daemon = Daemon::start().await;
    daemon.deploy_python("f", CALL).await;
    ends(&daemon, json!({ "x32": [(1 << 30) | libc::SYS_getpid] }), "x32").await;
    // mov eax, 20 (getpid); int 0x80; ret. A kernel without that interface kills the process by itself.
    let record = daemon.call("f", &json!({ "machine": "b814000000cd80c3" })).await;
    assert_eq!((&record["status"], &record["errorType"]), (&json!("FAILED"), &json!("Crashed")), "{record}");
    let message = record["errorMessage"].as_str().expect("a message");
    assert!(message.contains("foreign_architecture") || message.contains("SIGSEGV"), "{message}");
    // Eight bytes that do nothing worse: mov eax, 7; ret.
    assert_eq!(daemon.result("f", &json!({ "machine": "b807000000c3" })).await, 7, "the same way, without the call");
}

#[tokio::test]
async fn a_flood_of_refused_calls_slows_its_sandbox_and_nobody_else() {
    let daemon = Daemon::start().await;
    daemon.deploy_python_with("f", CALL, json!({ "timeoutMs": 30000 })).await;
    daemon.deploy_python("other", "def handler(event, context):\n    return event\n").await;
    let flood = json!({ "flood": [libc::SYS_keyctl, 0, -3, 1], "seconds": 4 });
    let job = daemon.submit("f", &flood).await;
    daemon.wait_running(&job).await;
    for n in 0..50 {
        assert_eq!(daemon.result("other", &json!(n)).await, n);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let record = daemon.wait_final(&job).await;
    // A burst, twenty a second, and one more for each thread.
    let made = record["result"].as_u64().expect("a number");
    assert!((200..700).contains(&made), "{record}");
}

#[tokio::test]
async fn landlock_refuses_writes_where_modes_and_mounts_would_not() {
    if faasd::sandbox::landlock_version().is_err() {
        eprintln!("this kernel has no Landlock, as `faasd doctor` says");
        return;
    }
    let daemon = Daemon::start().await;
    let source = r#"
import errno, os
def tried(path, text):
    try:
        with open(path, 'w') as file: file.write(text)
        return 'written'
    except OSError as error:
        return errno.errorcode[error.errno]
def handler(event, context):
    os.makedirs('/tmp/a'); os.mkfifo('/tmp/a/fifo'); os.rename('/tmp/a', '/tmp/b'); os.symlink('x', '/output/link')
    own = {path: tried(path, 'renamed') for path in ('/proc/self/comm', '/proc/self/oom_score_adj')}
    return {**own, '/tmp/x': tried('/tmp/x', ''), '/output/x': tried('/output/x', ''), '/dev/null': tried('/dev/null', 'x')}
"#;
    daemon.deploy_python("f", source).await;
    let seen = daemon.result("f", &json!(null)).await;
    // Its own files in /proc are its own by mode, and /proc is mounted for writing.
    assert_eq!((&seen["/proc/self/comm"], &seen["/proc/self/oom_score_adj"]), (&json!("EACCES"), &json!("EACCES")));
    for path in ["/tmp/x", "/output/x", "/dev/null"] {
        assert_eq!(seen[path], "written", "{path}");
    }
}
