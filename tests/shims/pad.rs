//! The launch pad of the native runner: the copy that it makes of itself while it waits for its function.

use std::fs;
use std::time::{Duration, Instant};

use faasd::domain::function::Runtime;

use super::{PATIENCE, Rig};

/// Says who it is, and asks for nothing.
const BOOTSTRAP: &str = "#!/bin/sh\necho \"pid $$\"\nexit 3\n";

/// The one child of the runner, once it is there.
fn pad(rig: &Rig) -> u32 {
    let runner = rig.child.id();
    let since = Instant::now();
    loop {
        let children = fs::read_to_string(format!("/proc/{runner}/task/{runner}/children")).unwrap();
        match children.split_whitespace().collect::<Vec<_>>()[..] {
            [pid] => return pid.parse().unwrap(),
            _ => assert!(since.elapsed() < PATIENCE, "no launch pad: {children:?}"),
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_bootstrap_begins_on_the_launch_pad() {
    let mut rig = Rig::start(Runtime::Provided, &[("bootstrap", BOOTSTRAP)]);
    let pad = pad(&rig);
    let error = rig.specialise(None).expect("an error");
    assert!(error.error_message.contains("exited with code 3"), "{}", error.error_message);
    assert_eq!(rig.stdout(), format!("pid {pad}\n"));
}

#[test]
fn what_can_not_be_started_says_so_from_there_too() {
    let mut rig = Rig::start(Runtime::Provided, &[("bootstrap", "no program\n")]);
    pad(&rig);
    let error = rig.specialise(None).expect("an error");
    assert_eq!(error.error_type, "ExecError");
    assert!(error.error_message.contains("must be a Linux program"), "{}", error.error_message);
}

#[test]
fn a_program_for_each_call_leaves_no_launch_pad() {
    let mut rig = Rig::start(Runtime::Cpp, &[("main", "#!/bin/sh\necho 1\n")]);
    let pad = pad(&rig);
    assert_eq!(rig.specialise(None), None, "{}", rig.stderr());
    assert!(!fs::exists(format!("/proc/{pad}")).unwrap(), "the launch pad is left");
}
