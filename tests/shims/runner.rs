//! The native runner, with programs written as scripts.

use std::os::unix::process::ExitStatusExt;

use faasd::domain::function::Runtime::{Cpp, Go, Provided};
use serde_json::json;

use super::Rig;

/// Speaks the Runtime API; what it does with an event is written in the event.
const BOOTSTRAP: &str = r#"#!/usr/bin/env python3
import http.client, json, os, signal, sys, time
api = http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"])
def ask(method, path, body=None, headers={}, chunked=False):
    api.request(method, "/2018-06-01/runtime/" + path, body, headers, encode_chunked=chunked)
    answer = api.getresponse()
    return answer, answer.read()
calls = 0
while True:
    answer, body = ask("GET", "invocation/next")
    event = json.loads(body)
    calls += 1
    id = answer.getheader("Lambda-Runtime-Aws-Request-Id")
    print("got", calls)
    sys.stdout.flush()
    if event == "error":
        error = {"errorType": "Ours", "errorMessage": "as asked", "trace": ["a", "b"]}
        ask("POST", f"invocation/{id}/error", json.dumps(error))
    elif event == "exit": os._exit(3)
    elif event == "segfault": os.kill(os.getpid(), signal.SIGSEGV)
    elif event == "wrong":
        first, _ = ask("POST", "invocation/other/response", "1")
        again, _ = ask("GET", "invocation/next")
        unknown, _ = ask("GET", "nothing")
        ask("POST", f"invocation/{id}/response", json.dumps([first.status, again.status, unknown.status]))
    elif event == "chunked":
        ask("POST", f"invocation/{id}/response", iter([b"[1,", b"2]"]), {"Transfer-Encoding": "chunked"}, True)
    elif event == "text":
        ask("POST", f"invocation/{id}/response", "no json")
    else:
        told = [answer.getheader("Lambda-Runtime-" + name) for name in ("Deadline-Ms", "Invoked-Function-Arn", "Trace-Id")]
        answer, body = ask("POST", f"invocation/{id}/response", json.dumps([event, calls, all(told), os.environ["GREETING"]]))
        assert answer.status == 202 and json.loads(body) == {"status": "OK"}
"#;

#[test]
fn a_bootstrap_serves_call_after_call() {
    let mut rig = Rig::loaded(Provided, &[("bootstrap", BOOTSTRAP)]);
    for n in [1, 2] {
        assert_eq!(rig.call(n.to_string()).value(), json!([n, n, true, "grüß dich"]));
    }
    assert_eq!(rig.stdout(), "got 1\ngot 2\n");
    let failed = rig.call("\"error\"");
    assert_eq!((failed.error().error_type.as_str(), failed.error().error_message.as_str()), ("Ours", "as asked"));
    assert_eq!(failed.error().stack_trace, ["a", "b"]);
    assert_eq!(rig.call("\"wrong\"").value(), json!([400, 403, 404]));
    assert_eq!(rig.call("\"chunked\"").value(), json!([1, 2]));
    assert_eq!(rig.call("\"text\"").value(), "no json");
    let large = format!("\"{}\"", "x".repeat(6 << 20));
    assert_eq!(rig.call(&large).value()[1], 7);
}

#[test]
fn a_bootstrap_that_dies_takes_the_runner_along() {
    let mut rig = Rig::loaded(Provided, &[("bootstrap", BOOTSTRAP)]);
    assert_eq!(rig.call_to_death("\"exit\"").code(), Some(3));
    let mut rig = Rig::loaded(Provided, &[("bootstrap", BOOTSTRAP)]);
    assert_eq!(rig.call_to_death("\"segfault\"").signal(), Some(libc::SIGSEGV));
}

#[test]
fn a_bootstrap_that_does_not_start_says_why() {
    let init_error = "#!/usr/bin/env python3\nimport http.client, os\napi = http.client.HTTPConnection(os.environ['AWS_LAMBDA_RUNTIME_API'])\n\
                      api.request('POST', '/2018-06-01/runtime/init/error', '{\"errorMessage\": \"no table\"}', \
                      {'Lambda-Runtime-Function-Error-Type': 'Ours'})\nprint(api.getresponse().status)\n";
    for (source, error_type, message) in [
        ("#!/bin/sh\nexit 4\n", "ExitError", "bootstrap exited with code 4 before it asked"),
        ("#!/bin/sh\nkill -ABRT $$\n", "Crashed", "killed by signal 6 (SIGABRT)"),
        ("\0\u{1} no program", "ExecError", "must be a Linux program"),
        ("#!/no/such/interpreter\n", "ExecError", "its interpreter or dynamic loader is not there"),
        (init_error, "Ours", "no table"),
    ] {
        let mut rig = Rig::start(Provided, &[("bootstrap", source)]);
        let error = rig.specialise(None).expect(source);
        assert_eq!(error.error_type, error_type, "{error:?}");
        assert!(error.error_message.contains(message), "{error:?}");
    }
    let error = Rig::start(Provided, &[("other", "")]).specialise(None).expect("nothing to start");
    assert!(error.error_message.contains("no executable file bootstrap"), "{error:?}");
}

#[test]
fn a_program_runs_anew_for_each_call() {
    let script = "#!/bin/sh\necho \"$PAYLOAD\" >&2\nread -r input\necho log\necho \"{\\\"in\\\":$input,\\\"id\\\":${#JOB_ID}}\"\n";
    let mut rig = Rig::loaded(Cpp, &[("main", script)]);
    for n in [1, 2] {
        assert_eq!(rig.call(n.to_string()).value(), json!({ "in": n, "id": 36 }));
    }
    assert_eq!((rig.stdout().as_str(), rig.stderr().as_str()), ("log\nlog\n", "1\n2\n"));
}

#[test]
fn large_payloads_come_by_stdin_alone() {
    let mut rig = Rig::loaded(Go, &[("main", "#!/bin/sh\necho \"[${#PAYLOAD},$(wc -c)]\"\n")]);
    assert_eq!(rig.call("12345").value(), json!([5, 5]));
    let large = format!("\"{}\"", "x".repeat(1 << 20));
    assert_eq!(rig.call(&large).value(), json!([0, large.len()]));
    let mut deaf = Rig::loaded(Go, &[("main", "#!/bin/sh\nexec echo 1\n")]);
    assert_eq!(deaf.call(&large).value(), 1, "a program need not read");
}

#[test]
fn a_program_that_fails_is_an_error_and_the_runner_lives_on() {
    let script = "#!/bin/sh\nread -r how\necho so far\ncase $how in 3) exit 3;; 11) kill -SEGV $$;; esac\n";
    let mut rig = Rig::loaded(Cpp, &[("main", script)]);
    let failed = rig.call("3\n");
    assert_eq!((failed.error().error_type.as_str(), failed.meta.exit_code), ("ExitError", Some(3)));
    let crashed = rig.call("11\n");
    assert_eq!(crashed.error().error_type, "Crashed");
    assert_eq!(crashed.error().error_message, "killed by signal 11 (SIGSEGV)");
    assert_eq!(rig.stdout(), "so far\nso far\n");
    assert_eq!(rig.call("0\n").value(), "so far");
}

#[test]
fn a_program_that_asks_for_next_becomes_a_server() {
    let mut rig = Rig::loaded(Go, &[("main", BOOTSTRAP)]);
    assert_eq!(rig.call("\"a\"").value()[1], 1);
    assert_eq!(rig.call("\"b\"").value()[1], 2, "the same process");
    assert_eq!(rig.stdout(), "got 1\ngot 2\n");
    assert_eq!(rig.call_to_death("\"exit\"").code(), Some(3));
}

#[test]
fn sigterm_reaches_the_program_and_partial_output_is_kept() {
    let script = "#!/bin/sh\ntrap 'echo bye; exit 0' TERM\nread -r input\necho '{\"half\":'\necho started >&2\nsleep 60 & wait\n";
    let mut rig = Rig::loaded(Cpp, &[("main", script)]);
    rig.begin(b"{}\n");
    while rig.stderr().is_empty() {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let pid = nix::unistd::Pid::from_raw(rig.child.id().cast_signed());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    assert_eq!(rig.died().signal(), Some(libc::SIGTERM));
    assert_eq!(rig.stdout(), "{\"half\":\nbye\n");
}

#[test]
fn programs_inherit_neither_the_socket_nor_the_signal_mask() {
    let script = "#!/bin/sh\ngrep SigBlk /proc/self/status >&2\nls -l /proc/self/fd >&2\necho 1\n";
    let mut rig = Rig::loaded(Cpp, &[("main", script)]);
    assert_eq!(rig.call("{}").value(), 1);
    let told = rig.stderr();
    assert!(told.starts_with("SigBlk:\t0000000000000000\n"), "{told}");
    assert!(told.contains(" 1 -> ") && !told.contains("socket:") && !told.contains("signalfd"), "{told}");
}

#[test]
fn cpp_is_compiled_in_a_copy_of_the_sources() {
    let arguments = faasd::runtime::compile::arguments(Cpp, std::path::Path::new("g++"));
    let mut rig = Rig::start(
        Cpp,
        &[
            ("main.cpp", "#include \"part.h\"\nint main() { return part(); }\n"),
            ("part.h", "int part();\n"),
            ("part.cpp", "int part() { return 7; }\n"),
        ],
    );
    assert_eq!(rig.specialise_to(None, Some(arguments.clone())), None);
    assert_eq!(rig.call("null").value(), json!(null), "{}", rig.stderr());
    assert_eq!(std::process::Command::new(rig.output().join("main")).status().unwrap().code(), Some(7));

    let mut rig = Rig::start(Cpp, &[("main.cpp", "int main() {\n  return missing;\n}\n")]);
    assert_eq!(rig.specialise_to(None, Some(arguments)), None);
    let failed = rig.call("null");
    assert_eq!(failed.error().error_message, "the compiler exited with code 1");
    assert!(rig.stderr().contains("main.cpp:2:10: error:"), "{}", rig.stderr());
}
