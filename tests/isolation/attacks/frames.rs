//! A sandbox that lies to the daemon in the daemon's own protocol: it harms itself alone. The control answers by hand, and is believed.

use std::time::Duration;

use serde_json::{Value, json};

use super::siege::Siege;
use crate::support::daemon::Daemon;

const SOURCE: &str = include_str!("probes/frames.py");

/// What must become of the liar's own call.
#[derive(Clone, Copy, PartialEq)]
enum Own {
    /// Not a success.
    Failed,
    /// An answer that is its own, whichever.
    Whatever,
}

const LIES: &[(&str, Own)] = &[
    ("answer-for-another-call", Own::Failed),
    ("answer-twice", Own::Whatever),
    ("answer-twice-at-once", Own::Failed),
    ("answer-unasked", Own::Whatever),
    ("answer-of-four-gigabytes", Own::Failed),
    ("answer-that-stalls", Own::Failed),
    ("answer-of-unknown-kind", Own::Failed),
    ("answer-of-unknown-version", Own::Failed),
    ("answer-with-broken-facts", Own::Failed),
    ("answer-that-is-no-json", Own::Failed),
    ("descriptors-with-an-answer", Own::Whatever),
    ("socket-half-closed", Own::Failed),
];

pub fn ids() -> Vec<&'static str> {
    LIES.iter().map(|lie| lie.0).collect()
}

#[tokio::test]
async fn a_sandbox_that_lies_harms_itself_alone() {
    let mut siege = Siege::of(Daemon::with("SANDBOX__GRACE_MS", 300)).await;
    let settings = json!({ "timeoutMs": 2500, "memoryMb": 128 });
    siege.mallory.deploy_python_with("liar", SOURCE, settings).await;
    let slow = "import time\ndef handler(event, context):\n    time.sleep(event)\n    return 'hers'\n";
    siege.ann.deploy_python_with("slow", slow, json!({ "timeoutMs": 60_000 })).await;
    let by_hand = siege.mallory.call("liar", &json!({ "attack": "answer-by-hand" })).await;
    assert_eq!(by_hand["result"], "by hand", "the control: a frame made here is one that the daemon takes: {by_hand}");

    // What the daemon makes ahead after its first sandboxes is there by then, with the descriptors that it keeps open.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let open = descriptors(&siege);
    let other = siege.ann.submit("slow", &json!(12)).await;
    siege.ann.wait_running(&other).await;
    for (id, own) in LIES {
        let record = siege.mallory.call("liar", &json!({ "attack": id, "other": other, "say": "said" })).await;
        let mut outcome = match own {
            Own::Failed if record["status"] == "SUCCESS" => Err(format!("believed: {record}")),
            _ => Ok(()),
        };
        // Whatever it left behind is nobody's answer.
        tokio::time::sleep(Duration::from_millis(500)).await;
        for nth in 0..3 {
            let next = siege.mallory.call("liar", &json!({ "say": nth })).await;
            // A sandbox on its way out may fail the liar once more; nobody's answer is another's, and the last comes from a new one.
            if (next["status"] == "SUCCESS" || nth == 2) && next["result"] != nth {
                outcome = Err(format!("call {nth} after it got another's answer, or none: {next}"));
            }
        }
        siege.judge(id, outcome).await;
    }
    let hers: Value = siege.ann.wait_final(&other).await;
    let hers = if hers["result"] == "hers" { Ok(()) } else { Err(format!("her call was answered by another: {hers}")) };
    siege.judge("answer-for-another-call", hers).await;
    let more = descriptors(&siege).saturating_sub(open);
    let kept = if more < 100 { Ok(()) } else { Err(format!("the daemon holds {more} descriptors more")) };
    siege.judge("descriptors-with-an-answer", kept).await;
    siege.lift();
}

fn descriptors(siege: &Siege) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", siege.daemon.pid())).map_or(0, Iterator::count)
}
