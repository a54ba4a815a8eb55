//! Warm calls: a closed loop on one function, by few and by many connections.

use std::io;

use serde_json::json;

use super::harness::control::run_request;
use super::harness::{NATIVE_ECHO, PYTHON_ECHO};
use super::references::BareRates;
use super::round::Round;

const CASES: [(&str, &str, usize); 6] = [
    ("warm python, 1 connection", "python", 1),
    ("warm node, 1 connection", "node", 1),
    ("warm native, 1 connection", "native", 1),
    ("warm python, 64 connections", "python", 64),
    ("warm native, 64 connections", "native", 64),
    ("warm python, 256 connections", "python", 256),
];
const NODE_ECHO: &str = "exports.handler = async (event) => event;\n";

pub fn measure(round: &Round<'_>, bare: &BareRates) -> io::Result<()> {
    let wanted: Vec<_> = CASES.iter().filter(|(case, ..)| round.wants(case)).collect();
    if wanted.is_empty() {
        return Ok(());
    }
    let daemon = round.daemon(&[])?;
    let mut control = daemon.control()?;
    let mut deployed = |name: &str, runtime: &str, code: &str| {
        control.deploy(&json!({ "name": name, "runtime": runtime, "code": { "inline": code } }))
    };
    deployed("python", "python", PYTHON_ECHO)?;
    let others = [("node", deployed("node", "nodejs", NODE_ECHO)), ("native", deployed("native", "cpp", NATIVE_ECHO))];
    for (case, function, connections) in wanted {
        if let Some((_, Err(error))) = others.iter().find(|(name, _)| name == function) {
            round.rows.absent(case, &error.to_string())?;
            continue;
        }
        let tally = round.closed(daemon.address, &run_request(&daemon.key, function, ""), *connections)?;
        round.tell_rate(case, &tally)?;
        round.rows.add(&format!("{case}: warm"), tally.warm as f64 * 100.0 / (tally.completed as f64).max(1.0), "%")?;
        if let Some(bare) = bare.get(function, *connections) {
            round.rows.add(&format!("{case}: of the bare hop"), tally.per_second() * 100.0 / bare, "%")?;
        }
    }
    Ok(())
}
