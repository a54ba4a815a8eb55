//! Cold starts: the first call of a function that was never called, each time another one.

use std::fs;
use std::io;
use std::process::Command;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use super::answer::Verdict;
use super::control::run_request;
use super::daemon::Daemon;
use super::engine::Tally;
use super::options::Options;
use super::report::Row;

/// Long enough for the pool to make a generic sandbox again.
const REFILL: Duration = Duration::from_millis(250);

struct Cold {
    name: &'static str,
    runtime: &'static str,
    /// How many generic sandboxes the daemon keeps ready.
    prewarmed: &'static str,
    /// Whether it keeps an interpreter to be forked.
    zygote: &'static str,
    start_type: &'static str,
    goal: &'static str,
}

const COLD: [Cold; 6] = [
    Cold {
        name: "cold python, pre-warmed",
        runtime: "python",
        prewarmed: "2",
        zygote: "true",
        start_type: "PREWARMED",
        goal: "≤ 1.5 / 4 ms",
    },
    Cold {
        name: "cold python, forked from the zygote",
        runtime: "python",
        prewarmed: "0",
        zygote: "true",
        start_type: "COLD",
        goal: "≤ 3 / 6 ms",
    },
    Cold {
        name: "cold python, interpreter booted for the call",
        runtime: "python",
        prewarmed: "0",
        zygote: "false",
        start_type: "COLD",
        goal: "",
    },
    Cold {
        name: "cold native",
        runtime: "provided",
        prewarmed: "1",
        zygote: "true",
        start_type: "PREWARMED",
        goal: "≤ 2 / 5 ms",
    },
    Cold {
        name: "cold node, pre-warmed",
        runtime: "nodejs",
        prewarmed: "1",
        zygote: "true",
        start_type: "PREWARMED",
        goal: "≤ 5 / 12 ms",
    },
    Cold {
        name: "cold node, fresh",
        runtime: "nodejs",
        prewarmed: "0",
        zygote: "true",
        start_type: "COLD",
        goal: "≤ 75 / 100 ms",
    },
];

pub fn measure_all(options: &Options, rows: &mut Vec<Row>, skipped: &mut Vec<String>) -> io::Result<()> {
    for case in COLD.iter().filter(|case| options.wants(case.name)) {
        eprintln!("{} …", case.name);
        match code(case.runtime) {
            Ok(code) => rows.push(measure(options, case, &code)?),
            Err(error) => skipped.push(format!("{}: {error}", case.name)),
        }
    }
    Ok(())
}

fn measure(options: &Options, case: &Cold, code: &Value) -> io::Result<Row> {
    let settings = [
        ("POOL__PREWARMED_PYTHON", case.prewarmed),
        ("POOL__PREWARMED_NODEJS", case.prewarmed),
        ("POOL__PREWARMED_NATIVE", case.prewarmed),
        ("SANDBOX__ZYGOTE", case.zygote),
    ];
    let daemon = Daemon::start(&options.executable, &settings)?;
    let mut control = daemon.control()?;
    let mut tally = Tally::new();
    let mut otherwise = 0;
    for nth in 0..options.cold_starts {
        let name = format!("cold-{nth}");
        control.deploy(&json!({ "name": name, "runtime": case.runtime, "code": code }))?;
        std::thread::sleep(REFILL);
        let request = run_request(&daemon.key, &name, "");
        let sent = Instant::now();
        let (status, body) = control.exchange(&request)?;
        let took = sent.elapsed();
        let record: Value = serde_json::from_slice(&body)?;
        if status != 200 || record["status"] != "SUCCESS" {
            tally.record(Verdict::Failed, took);
        } else if record["startType"] == case.start_type {
            tally.record(Verdict::Done { warm: false }, took);
        } else {
            otherwise += 1;
        }
        tally.measured += took;
    }
    let row = Row { per_second: None, warm_percent: None, ..Row::of(case.name, case.goal, &tally) };
    Ok(match otherwise {
        0 => row,
        other => Row { case: format!("{} ({other} began otherwise)", row.case), ..row },
    })
}

fn code(runtime: &str) -> io::Result<Value> {
    Ok(match runtime {
        "python" => json!({ "inline": "def handler(event, context):\n    return event\n" }),
        "nodejs" => json!({ "inline": "exports.handler = async (event) => event;\n" }),
        _ => json!({ "zipBase64": BASE64_STANDARD.encode(native_bootstrap()?) }),
    })
}

/// The native echo, compiled here once, as the `bootstrap` of an archive.
fn native_bootstrap() -> io::Result<Vec<u8>> {
    let dir = tempfile::tempdir()?;
    let (source, program) = (dir.path().join("echo.cpp"), dir.path().join("bootstrap"));
    fs::write(&source, include_str!("echo.cpp"))?;
    let built = Command::new("g++").args(["-O2", "-static", "-o"]).args([&program, &source]).status()?;
    if !built.success() {
        return Err(io::Error::other("g++ could not build the native echo"));
    }
    let mut archive = zip::ZipWriter::new(io::Cursor::new(Vec::new()));
    let executable = zip::write::SimpleFileOptions::default().unix_permissions(0o755);
    archive.start_file("bootstrap", executable)?;
    io::Write::write_all(&mut archive, &fs::read(&program)?)?;
    Ok(archive.finish()?.into_inner())
}
