//! Two owners' sandboxes side by side, two versions one after the other: what one has, the other never meets. The control is the victim,
//! which looks for its own things with the attacker's eyes and finds them all.

use serde_json::{Value, json};

use super::siege::Siege;
use crate::support::archive::zip;
use crate::support::daemon::Daemon;
use crate::support::platform::{merged, zipped};

const PEEK: &[u8] = include_bytes!("probes/peek.py");
/// In the victim's files, environment, arguments and code.
const SECRET: &str = "victim-secret-5d21";

const PEEKS: &[&str] = &[
    "neighbour-files",
    "neighbour-shared-memory",
    "neighbour-code",
    "neighbour-environment",
    "neighbour-processes",
    "neighbour-loopback",
    "neighbour-abstract-socket",
    "neighbour-output",
    "neighbour-signals",
];
const EARLIER: &str = "code-of-an-earlier-version";
const LEFT: &str = "files-of-an-earlier-version";

pub fn ids() -> Vec<&'static str> {
    [PEEKS, &[EARLIER, LEFT]].concat()
}

#[tokio::test]
async fn sandboxes_are_hidden_from_each_other() {
    let mut siege = Siege::of(Daemon::with("SANDBOX__GRACE_MS", 300)).await;
    let archive = zip(&[("main.py", b"from peek import handler\n"), ("peek.py", PEEK), ("note", SECRET.as_bytes())]);
    let settings = json!({ "timeoutMs": 60_000, "memoryMb": 256, "env": { "VICTIM_SECRET": SECRET } });
    siege.ann.deploy(merged(zipped("victim", "python", &archive), settings)).await;
    let bare = zip(&[("main.py", b"from peek import handler\n"), ("peek.py", PEEK)]);
    siege
        .mallory
        .deploy(merged(zipped("attack", "python", &bare), json!({ "memoryMb": 256, "timeoutMs": 20_000 })))
        .await;

    let input = json!({ "be": "victim", "peeks": PEEKS, "secret": SECRET, "seconds": 20 });
    let victim = siege.ann.submit("victim", &input).await;
    siege.ann.wait_running(&victim).await;
    // It says so when everything lies ready.
    let ready = async |siege: &Siege| {
        let mut events = siege.ann.get(&format!("/invocations/{victim}/events")).events().await;
        while let Some(event) = events.next().await {
            if event.kind == "log" && event.data.contains("planted") {
                return true;
            }
        }
        false
    };
    assert!(ready(&siege).await, "the victim ended before it began");
    for id in PEEKS {
        let input = json!({ "be": "attacker", "peek": id, "secret": SECRET });
        let record = siege.mallory.call("attack", &input).await;
        let outcome = match &record["result"]["found"] {
            Value::Bool(false) => Ok(()),
            _ if record["errorType"] == "Crashed" => Ok(()),
            _ => Err(format!("found it: {record}")),
        };
        siege.judge(id, outcome).await;
    }
    siege.ann.delete(&format!("/invocations/{victim}")).send().await;
    let alone = siege.ann.call("victim", &merged(input, json!({ "seconds": 0 }))).await;
    for id in PEEKS {
        let found = &alone["result"]["found"][id];
        let shown =
            if found == true { Ok(()) } else { Err(format!("proves nothing: its owner doesn't find it: {alone}")) };
        siege.judge(id, shown).await;
    }
    versions(&mut siege).await;
    siege.lift();
}

/// The first version leaves what it can; the second looks for it.
async fn versions(siege: &mut Siege) {
    let look = b"import os\ndef handler(event, context):\n    open('/tmp/left', 'a').write('x')\n    seen = []\n    \
                 for folder, inner, names in os.walk('/'):\n        inner[:] = [n for n in inner if os.path.join(folder, n) not in ('/proc', '/usr', '/dev')]\n        \
                 seen += [os.path.join(folder, n) for n in names if n in ('first-version-only', 'left')]\n    \
                 return {'seen': seen, 'left': os.path.getsize('/tmp/left')}\n";
    let first = zip(&[("main.py", look), ("first-version-only", b"x")]);
    let second = zip(&[("main.py", look), ("more.py", b"")]);
    let deployed = siege.mallory.deploy(zipped("twice", "python", &first)).await;
    siege.mallory.call("twice", &json!({})).await;
    let before = siege.mallory.result("twice", &json!({})).await;
    let code = |seen: &Value| seen["seen"].to_string().contains("first-version-only");
    let shown = code(&before) && before["left"] == 2;
    let request = siege.mallory.request(http::Method::PUT, &format!("/functions/{}", deployed.id));
    request.json(&zipped("twice", "python", &second)).send().await.expect(200);
    let after = siege.mallory.result("twice", &json!({})).await;
    let held = |held: bool| if held && shown { Ok(()) } else { Err(format!("first {before}, then {after}")) };
    siege.judge(EARLIER, held(!code(&after))).await;
    siege.judge(LEFT, held(after["left"] == 1)).await;
}
