//! Cold starts: the first call of a function that was never called, each time another one.

use std::io;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::harness::answer::Verdict;
use super::harness::control::run_request;
use super::harness::engine::Tally;
use super::harness::{NATIVE_ECHO, PYTHON_ECHO, native};
use super::round::Round;

/// Long enough for the pool to make a generic sandbox again.
const REFILL: Duration = Duration::from_millis(150);

struct Cold {
    name: &'static str,
    runtime: &'static str,
    /// How many generic sandboxes the daemon keeps ready.
    prewarmed: &'static str,
    /// Whether it keeps an interpreter to be forked.
    zygote: &'static str,
    start_type: &'static str,
}

const COLD: [Cold; 6] = [
    Cold {
        name: "cold python, pre-warmed",
        runtime: "python",
        prewarmed: "2",
        zygote: "true",
        start_type: "PREWARMED",
    },
    Cold {
        name: "cold python, made for the call",
        runtime: "python",
        prewarmed: "0",
        zygote: "true",
        start_type: "COLD",
    },
    Cold {
        name: "cold python, booted for the call",
        runtime: "python",
        prewarmed: "0",
        zygote: "false",
        start_type: "COLD",
    },
    Cold { name: "cold native", runtime: "provided", prewarmed: "1", zygote: "true", start_type: "PREWARMED" },
    Cold { name: "cold node, pre-warmed", runtime: "nodejs", prewarmed: "1", zygote: "true", start_type: "PREWARMED" },
    Cold { name: "cold node, fresh", runtime: "nodejs", prewarmed: "0", zygote: "true", start_type: "COLD" },
];

pub fn measure(round: &Round<'_>) -> io::Result<()> {
    for case in COLD.iter().filter(|case| round.wants(case.name)) {
        match code(case.runtime) {
            Ok(code) => first_calls(round, case, &code)?,
            Err(error) => round.rows.absent(case.name, &error.to_string())?,
        }
    }
    Ok(())
}

fn first_calls(round: &Round<'_>, case: &Cold, code: &Value) -> io::Result<()> {
    let daemon = round.daemon(&[
        ("POOL__PREWARMED_PYTHON", case.prewarmed),
        ("POOL__PREWARMED_NODEJS", case.prewarmed),
        ("POOL__PREWARMED_NATIVE", case.prewarmed),
        ("SANDBOX__ZYGOTE", case.zygote),
    ])?;
    let mut control = daemon.control()?;
    let mut tally = Tally::new();
    let mut otherwise = 0;
    for nth in 0..round.options.cold_starts {
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
    round.rows.add(&format!("{}: began otherwise", case.name), f64::from(otherwise), "calls")?;
    round.tell(case.name, &tally)
}

fn code(runtime: &str) -> io::Result<Value> {
    Ok(match runtime {
        "python" => json!({ "inline": PYTHON_ECHO }),
        "nodejs" => json!({ "inline": "exports.handler = async (event) => event;\n" }),
        _ => json!({ "zipBase64": native::bootstrap(NATIVE_ECHO)? }),
    })
}
