//! Code that attacks while it is loaded, before there is a call to time out.

use std::time::{Duration, Instant};

use serde_json::json;

use super::siege::Siege;
use crate::support::daemon::Daemon;

/// Far above `sandbox.init_timeout_ms` of the daemon here.
const RECORD_LIMIT: Duration = Duration::from_secs(40);
const FAILED: &[&str] = &["InitError", "Timeout", "Crashed", "OutOfMemory", "FunctionError"];
const ANY: &[&str] = &["", "InitError", "Timeout", "Crashed", "OutOfMemory", "FunctionError"];

const HANDLER: &str = "\ndef handler(event, context):\n    return 'fine'\n";

/// An attack, what it is as a module, and how its call may end; the empty end is success.
const MODULES: &[(&str, &str, &[&str])] = &[
    ("loading-never-ends", "import time\nwhile True:\n    time.sleep(60)\n", FAILED),
    ("loading-burns", "while True:\n    pass\n", FAILED),
    ("loading-hoards", "kept = []\nwhile True:\n    kept.append(bytearray(1 << 20))\n", FAILED),
    ("loading-exits", "import os\nos._exit(3)\n", FAILED),
    (
        "loading-kills-all",
        "import os\nif os.fork() == 0:\n    while True: pass\nos.kill(-1, 9)\nos.kill(os.getpid(), 9)\n",
        FAILED,
    ),
    ("loading-prints-without-end", "while True:\n    print('x' * 1000)\n", FAILED),
    (
        "loading-forks",
        "import os, time\nend = time.monotonic() + 1\nwhile time.monotonic() < end:\n    try:\n        os.fork()\n    except OSError:\n        time.sleep(0.01)\n",
        ANY,
    ),
    (
        "loading-leaves-a-thread",
        "import threading\ndef spin():\n    while True: pass\nthreading.Thread(target=spin, daemon=True).start()\n",
        ANY,
    ),
    // The shim has all it needs before it lets anybody in: what breaks is the attacker's own.
    ("loading-breaks-the-shim", "import os, json, sys\nos.write = None\njson.loads = None\nsys.modules.clear()\n", ANY),
    ("loading-closes-the-socket", "import os\nos.closerange(3, 1024)\n", FAILED),
];

pub fn ids() -> Vec<&'static str> {
    MODULES.iter().map(|module| module.0).collect()
}

#[tokio::test]
async fn what_runs_while_loading_is_bounded_too() {
    let mut siege = Siege::of(Daemon::with("SANDBOX__GRACE_MS", 300).set("SANDBOX__INIT_TIMEOUT_MS", 2500)).await;
    for (id, module, ends) in MODULES {
        let source = format!("{module}{HANDLER}");
        let settings = json!({ "timeoutMs": 5000, "memoryMb": 128 });
        siege.mallory.deploy_python_with(id, &source, settings).await;
        let since = Instant::now();
        let answer = siege.mallory.run(id, &json!({})).send().await;
        let took = since.elapsed();
        let end = answer.json()["errorType"].as_str().unwrap_or_default().to_owned();
        let ended = answer.status == 200 && ends.contains(&end.as_str());
        let outcome = if ended && took < RECORD_LIMIT {
            Ok(())
        } else {
            Err(format!("ended after {took:?} otherwise than by {ends:?}: {}", answer.text()))
        };
        siege.judge(id, outcome).await;
    }
    siege.lift();
}
