//! Files left in `/output`, which the daemon takes out as root: it must take what is a file there, and follow nothing.

use std::time::Duration;

use serde_json::{Value, json};

use super::lures::SECRET;
use super::siege::Siege;
use crate::support::archive::zip;
use crate::support::daemon::Daemon;
use crate::support::platform::{merged, zipped};

const SOURCE: &str = include_str!("probes/left.py");
/// `limits.output_files`, by default.
const FILES_MAX: usize = 100;
/// After which a collection that hangs on a pipe would still not be over.
const RECORD_LIMIT: Duration = Duration::from_secs(40);
/// These leave so much that the file which is always there may be dropped with the rest.
const CROWDED: &[&str] = &["output-many-files", "output-of-a-terabyte", "output-growing-file", "output-swap-race"];

pub fn ids() -> Vec<&'static str> {
    let after = SOURCE.split("\n@attack(\"").skip(1);
    after.map(|rest| rest.split('"').next().unwrap_or_default()).collect()
}

#[tokio::test]
async fn what_is_left_in_output_leads_nowhere() {
    let mut siege = Siege::of(Daemon::with("SANDBOX__GRACE_MS", 300)).await;
    let lure = siege.daemon.footprint().home.join("lure");
    std::fs::write(&lure, SECRET).expect("a file");
    let definition = zipped("attack", "python", &zip(&[("main.py", SOURCE.as_bytes())]));
    siege.mallory.deploy(merged(definition, json!({ "memoryMb": 128, "timeoutMs": 10_000 }))).await;
    for id in ids() {
        let input = json!({ "attack": id, "lure": lure });
        let outcome = match tokio::time::timeout(RECORD_LIMIT, siege.mallory.call("attack", &input)).await {
            Ok(record) => collected(&siege, id, &record).await,
            Err(_) => Err(format!("no record after {RECORD_LIMIT:?}")),
        };
        siege.judge(id, outcome).await;
    }
    siege.lift();
}

async fn collected(siege: &Siege, id: &str, record: &Value) -> Result<(), String> {
    if record["status"] != "SUCCESS" {
        // What goes on writing after its answer may cost the attacker its sandbox, not more.
        return if CROWDED.contains(&id) { Ok(()) } else { Err(format!("did not run: {record}")) };
    }
    let files = record["outputFiles"].as_array().cloned().unwrap_or_default();
    if files.len() > FILES_MAX {
        return Err(format!("{} files were kept", files.len()));
    }
    let mut kept = false;
    for file in &files {
        let name = file["name"].as_str().unwrap_or_default();
        if name.starts_with('/') || name.split('/').any(|part| part == "..") {
            return Err(format!("a file is called {name:?}"));
        }
        let encode = |byte: u8| if byte == b'/' { "/".to_owned() } else { format!("%{byte:02x}") };
        let encoded: String = name.bytes().map(encode).collect();
        let request = record["requestId"].as_str().unwrap_or_default();
        let answer = siege.mallory.get(&format!("/invocations/{request}/files/{encoded}")).send().await;
        if answer.text().contains(SECRET) || answer.header("set-cookie").is_some() {
            return Err(format!("{name:?} is the host's: {:?}", answer.headers));
        }
        kept |= name == "kept.txt" && answer.text() == "kept";
    }
    if kept || CROWDED.contains(&id) { Ok(()) } else { Err(format!("the plain file beside it is not kept: {files:?}")) }
}
