//! More calls than can be completed: some are refused at once, none waits for long, and none that was accepted is lost.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::task::JoinSet;

use crate::support::daemon::Builder;

const CALLERS: usize = 40;
const NAP: &str = "import time\ndef handler(event, context):\n    time.sleep(0.05)\n    return event\n";

/// Twenty calls a second, one at a time, asked for by forty callers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_a_line_lasts_newcomers_are_refused_at_once_and_queued_calls_are_done() {
    let daemon = Builder::default().set("POOL__CONCURRENCY_MAX", 1).set("POOL__QUEUE_WAIT_MS", 100).start().await;
    daemon.deploy_python("nap", NAP).await;
    daemon.call("nap", &json!(0)).await;
    let queued = daemon.submit("nap", &json!(7)).await;
    let until = Instant::now() + Duration::from_secs(4);
    let mut callers = JoinSet::new();
    for _ in 0..CALLERS {
        let client = (*daemon).clone();
        callers.spawn(async move {
            let (mut done, mut refused) = (0, Vec::new());
            while Instant::now() < until {
                let asked = Instant::now();
                let answer = client.run("nap", &json!(1)).send().await;
                match answer.status {
                    200 => done += 1,
                    503 => {
                        let sentence = answer.json()["error"].as_str().unwrap_or_default().to_owned();
                        assert!(sentence.contains("pool.queue_wait_ms"), "{sentence}");
                        refused.push(asked.elapsed());
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                    other => panic!("{other}: {answer:?}"),
                }
            }
            (done, refused)
        });
    }
    let (mut done, mut refused) = (0, Vec::new());
    while let Some(caller) = callers.join_next().await {
        let (ended, turned_away) = caller.expect("every call is answered rightly");
        done += ended;
        refused.extend(turned_away);
    }
    assert!(done >= 20 && refused.len() > 20, "{done} done, {} refused", refused.len());
    assert_eq!(daemon.wait_final(&queued).await["result"], 7);
    // The line is gone, and with it the refusals.
    assert_eq!(daemon.result("nap", &json!(3)).await, json!(3));
}
