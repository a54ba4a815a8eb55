//! What a call used is this call's, not its sandbox's.

use serde_json::{Value, json};

use crate::support::daemon::Daemon;

const MIB: u64 = 1 << 20;

fn number(record: &Value, name: &str) -> u64 {
    record[name].as_u64().unwrap_or_else(|| panic!("{name} in {record}"))
}

#[tokio::test]
async fn peak_memory_is_of_this_call() {
    let daemon = Daemon::start().await;
    let source = "def handler(event, context):\n    kept = b'x' * (event << 20)\n    return len(kept)\n";
    daemon.deploy_python_with("f", source, json!({ "memoryMb": 256 })).await;
    let small = number(&daemon.call("f", &json!(1)).await, "peakMemoryBytes");
    let large = number(&daemon.call("f", &json!(50)).await, "peakMemoryBytes");
    let record = daemon.call("f", &json!(1)).await;
    assert_eq!(record["startType"], "WARM");
    let after = number(&record, "peakMemoryBytes");
    assert!(large >= small + 45 * MIB, "50 MiB more show: {small} then {large}");
    assert!(after + 40 * MIB < large, "the next call starts anew: {large} then {after}");
    assert!(large < 256 * MIB);
}

#[tokio::test]
async fn cpu_time_is_what_was_burnt() {
    let daemon = Daemon::start().await;
    let source = "import time\ndef handler(event, context):\n    end = time.process_time() + event\n    \
                  while time.process_time() < end: pass\n    return 1\n";
    daemon.deploy_python_with("f", source, json!({ "memoryMb": 1792 })).await;
    let idle = number(&daemon.call("f", &json!(0)).await, "cpuUs");
    let busy = number(&daemon.call("f", &json!(0.3)).await, "cpuUs");
    let after = number(&daemon.call("f", &json!(0)).await, "cpuUs");
    assert!((280_000..600_000).contains(&busy), "{busy} µs for 300 ms of work");
    assert!(idle < 100_000 && after < 50_000, "{idle} and {after} µs for none");
}

/// The processor is given in proportion to memory: with little of it, work takes longer and the record says that it was held back.
#[tokio::test]
async fn little_memory_is_little_processor() {
    let daemon = Daemon::start().await;
    let source = "import time\ndef handler(event, context):\n    start = time.time()\n    end = time.process_time() + 0.4\n    \
                  while time.process_time() < end: pass\n    return time.time() - start\n";
    daemon.deploy_python_with("small", source, json!({ "memoryMb": 128 })).await;
    let record = daemon.call("small", &json!({})).await;
    assert!(record["result"].as_f64().is_some_and(|seconds| seconds > 0.8), "{record}");
    assert!(number(&record, "throttledUs") > 0, "{record}");
}

#[tokio::test]
async fn waiting_costs_time_and_no_processor() {
    let daemon = Daemon::start().await;
    daemon.deploy_python("f", "import time\ndef handler(event, context):\n    time.sleep(0.5)\n").await;
    daemon.call("f", &json!({})).await;
    let record = daemon.call("f", &json!({})).await;
    assert!(number(&record, "cpuUs") < 50_000, "{record}");
    for (name, value) in [("durationMs", &record["durationMs"]), ("handlerMs", &record["timings"]["handlerMs"])] {
        assert!(value.as_f64().is_some_and(|ms| (495.0..900.0).contains(&ms)), "{name}: {record}");
    }
}
