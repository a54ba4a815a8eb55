//! Many clients, several functions, several sizes: an open loop over 2 000 connections. The calls are those of two owners, so that
//! neither meets the bound of one owner's calls.

use std::io;

use serde_json::json;

use super::harness::control::{Control, owner_key, run_with};
use super::harness::engine::{Load, Loop};
use super::round::{Round, WARM_UP};

const CASE: &str = "mixed python, 2000 connections, open loop";
const CONNECTIONS: usize = 2000;

/// Name, code, bytes of text in its input, and how many of sixteen calls are its.
const FUNCTIONS: [(&str, &str, usize, usize); 5] = [
    ("echo", "def handler(event, context):\n    return event\n", 10, 7),
    ("words", "def handler(event, context):\n    return {'words': len(event['text'].split())}\n", 1000, 4),
    ("print", "def handler(event, context):\n    print('got', len(event['text']))\n    return True\n", 100, 2),
    (
        "digest",
        "import hashlib\ndef handler(event, context):\n    return hashlib.sha256(event['text'].encode()).hexdigest()\n",
        4000,
        2,
    ),
    ("echo-large", "def handler(event, context):\n    return event\n", 8000, 1),
];

pub fn measure(round: &Round<'_>) -> io::Result<()> {
    if !round.wants(CASE) {
        return Ok(());
    }
    let daemon = round.daemon(&[])?;
    let mut admin = daemon.control()?;
    let keys = [owner_key(&mut admin, "ada")?, owner_key(&mut admin, "grace")?];
    for key in &keys {
        let mut control = Control::connect(daemon.address, key)?;
        for (name, code, ..) in FUNCTIONS {
            control.deploy(&json!({ "name": name, "runtime": "python", "code": { "inline": code } }))?;
        }
    }
    let rate = round.options.rate;
    let load = Load {
        address: daemon.address,
        requests: &calls(&keys),
        connections: CONNECTIONS,
        schedule: Loop::Open { rate },
        warm_up: WARM_UP * 2,
        duration: round.options.duration(),
        keep_ids: false,
    };
    let tally = load.run()?;
    round.tell_rate(CASE, &tally)?;
    round.rows.add(&format!("{CASE}: not completed"), (tally.failed + tally.refused) as f64, "calls")
}

/// One after the other in an order that spreads functions and owners.
fn calls(keys: &[String]) -> Vec<Vec<u8>> {
    let share: usize = FUNCTIONS.iter().map(|(.., share)| share).sum();
    let mut functions = Vec::new();
    for place in 0..share {
        // Seven and sixteen have no common divisor, so every place comes once.
        let mut at = place * 7 % share;
        let chosen = FUNCTIONS.iter().find(|(.., share)| at.checked_sub(*share).map(|rest| at = rest).is_none());
        functions.extend(chosen);
    }
    let of = |key: &String| {
        let calls = functions.iter().map(|(name, _, bytes, _)| {
            let text = "words of text ".repeat(bytes / 14 + 1);
            run_with(key, name, "", &json!({ "n": 1, "text": &text[..*bytes] }).to_string())
        });
        calls.collect::<Vec<_>>()
    };
    let (first, second) = (of(&keys[0]), of(&keys[1]));
    first.into_iter().zip(second).flat_map(|(first, second)| [first, second]).collect()
}
