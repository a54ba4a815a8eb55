//! Everything dies, again and again, under load: what was accepted ends once, and everybody is told the same.
//!
//! `CHAOS_CALLS` and `CHAOS_SEED` make it longer and repeat it; `make cluster-test` runs it at full length.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::support::client::Client;
use crate::support::cluster::Cluster;
use crate::support::platform::is_final;

/// Enough for every node to die more than once, few enough for every test run.
const CALLS: usize = 4000;
const CALLERS: usize = 24;
/// Between two deaths.
const KILL_EVERY: Duration = Duration::from_secs(1);
/// Long enough for everybody to notice.
const REDIS_DOWN: Duration = Duration::from_millis(1500);
/// A caller tries one call for so long; nothing that is down stays down for nearly that.
const CALL_LIMIT: Duration = Duration::from_secs(120);
/// After the last death everything that was accepted must have ended by then.
const END_LIMIT: Duration = Duration::from_secs(180);
const STOP_LIMIT: Duration = Duration::from_secs(60);

/// Answers with what it was given, whose it was, and something that no other execution answers.
const SOURCE: &str = "\
import os, time
def handler(event, context):
    time.sleep(event['sleep_ms'] / 1000)
    return {'i': event['i'], 'once': os.urandom(16).hex(), 'id': context.aws_request_id}
";

/// SplitMix64: the same seed, the same run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} must be a number, not {text}")))
}

/// What callers know of the fleet.
struct Shared {
    addresses: Mutex<Vec<SocketAddr>>,
    key: String,
    next: AtomicUsize,
    calls: usize,
    over: AtomicBool,
    /// Tries that were answered by nobody, or refused.
    retried: AtomicUsize,
}

/// What a call came to, as its caller saw it.
enum Seen {
    /// Answered at once.
    Answered {
        id: String,
        result: Value,
    },
    Accepted {
        id: String,
    },
}

impl Shared {
    fn anyone(&self, random: &mut Random) -> Option<Client> {
        let addresses = self.addresses.lock().unwrap();
        if addresses.is_empty() {
            return None;
        }
        Some(Client::new(addresses[random.below(addresses.len())], self.key.clone()))
    }
}

/// Calls with keys until none is left; a call is tried again with its key until it is answered.
async fn call(shared: Arc<Shared>, mut random: Random) -> Vec<(usize, Seen)> {
    let mut seen = Vec::new();
    loop {
        let i = shared.next.fetch_add(1, Ordering::Relaxed);
        if i >= shared.calls {
            return seen;
        }
        let is_async = random.below(2) == 0;
        let event = json!({ "i": i, "sleep_ms": random.below(30) });
        let since = Instant::now();
        loop {
            assert!(since.elapsed() < CALL_LIMIT, "call {i} was not answered in {CALL_LIMIT:?}");
            if let Some(client) = shared.anyone(&mut random) {
                let mut request = client.run("work", &event).header("idempotency-key", &format!("call-{i}"));
                if is_async {
                    request = request.header("x-async", "true");
                }
                match request.try_send().await {
                    Ok(answer) if answer.status == 202 => {
                        let id = answer.json()["jobId"].as_str().expect("a jobId").to_owned();
                        seen.push((i, Seen::Accepted { id }));
                        break;
                    }
                    Ok(answer) if answer.status == 200 => {
                        let record = answer.json();
                        assert_eq!(record["status"], "SUCCESS", "call {i}: {record}");
                        assert_eq!(record["result"]["i"], i, "somebody else's result: {record}");
                        let id = record["requestId"].as_str().expect("a requestId").to_owned();
                        seen.push((i, Seen::Answered { id, result: record["result"].clone() }));
                        break;
                    }
                    // The caller's mistake would not go away by trying again.
                    Ok(answer) => assert!(answer.status >= 429, "call {i}: {} {}", answer.status, answer.text()),
                    Err(_) => {}
                }
            }
            shared.retried.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(50 + random.below(100) as u64)).await;
        }
    }
}

/// Kills a node each second and starts it again the next; Redis twice. How many died. Who is busy starting keeps the others alive: on a
/// machine that starts a node in more than a second nothing but deaths would be seen.
async fn kill(cluster: &mut Cluster, shared: &Shared, random: &mut Random) -> usize {
    let (mut killed, mut down): (usize, Option<String>) = (0, None);
    let began = Instant::now();
    let mut redis_at = [5, 12].map(Duration::from_secs).into_iter().peekable();
    while !shared.over.load(Ordering::Relaxed) {
        tokio::time::sleep(KILL_EVERY).await;
        let living: Vec<String> =
            cluster.nodes.iter().filter(|node| node.is_up()).map(|node| node.name.clone()).collect();
        if let Some(name) = down.take() {
            cluster.respawn(&name);
        }
        if living.len() + 1 >= cluster.nodes.len() {
            let name = living[random.below(living.len())].clone();
            cluster.node(&name).kill9();
            killed += 1;
            down = Some(name);
        }
        if redis_at.next_if(|at| began.elapsed() > *at).is_some() {
            let redis = cluster.redis.as_mut().expect("a Redis");
            redis.kill9();
            tokio::time::sleep(REDIS_DOWN).await;
            redis.restart();
        }
        *shared.addresses.lock().unwrap() = cluster.addresses();
    }
    if let Some(name) = down {
        cluster.respawn(&name);
    }
    cluster.wait_until_ready().await;
    *shared.addresses.lock().unwrap() = cluster.addresses();
    killed
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_accepted_ends_once_whatever_dies() {
    let seed = number("CHAOS_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    let calls = number("CHAOS_CALLS").map_or(CALLS, |calls| calls as usize);
    println!("chaos: CHAOS_SEED={seed} CHAOS_CALLS={calls} repeats this run");
    let mut cluster = Cluster::of(2, 3)
        .set("POOL__SANDBOXES_MAX", 60)
        .set("QUEUE__VISIBILITY_S", 5)
        .set("QUEUE__BACKOFF_MS", 100)
        .set("QUEUE__ATTEMPTS_MAX", 20)
        .set("SHUTDOWN__DRAIN_MS", 20_000)
        .set("HTTP__SYNC_WAIT_EXTRA_MS", 2_000)
        .start()
        .await;
    // A call whose controller died is taken over by its repeat once it can't be running any more: twice what it may wait and run.
    cluster.controller(0).deploy_python_with("work", SOURCE, json!({ "timeoutMs": 3_000 })).await;
    let shared = Arc::new(Shared {
        addresses: Mutex::new(cluster.addresses()),
        key: cluster.admin_key().to_owned(),
        next: AtomicUsize::new(0),
        calls,
        over: AtomicBool::new(false),
        retried: AtomicUsize::new(0),
    });
    cluster.cloud.fault(&json!({ "seed": seed, "failing": 0.03, "stalled": 0.02, "stallMs": 300 })).await;

    let mut random = Random(seed);
    let began = Instant::now();
    let mut callers = JoinSet::new();
    for n in 0..CALLERS {
        callers.spawn(call(shared.clone(), Random(seed ^ (n as u64 + 1) << 32)));
    }
    let finishing = shared.clone();
    let finished = tokio::spawn(async move {
        let mut seen = Vec::new();
        while let Some(one) = callers.join_next().await {
            match one {
                Ok(one) => seen.extend(one),
                Err(panicked) => {
                    finishing.over.store(true, Ordering::Relaxed);
                    std::panic::resume_unwind(panicked.into_panic());
                }
            }
        }
        finishing.over.store(true, Ordering::Relaxed);
        seen
    });
    let killed = kill(&mut cluster, &shared, &mut random).await;
    let seen = finished.await.expect("every call was answered");
    cluster.cloud.fault(&json!({})).await;
    println!(
        "chaos: {} calls answered in {:?}, {killed} nodes killed, {} tries failed",
        seen.len(),
        began.elapsed(),
        shared.retried.load(Ordering::Relaxed)
    );
    assert_eq!(seen.len(), calls);

    judge(&cluster, &seen).await;
    let since = Instant::now();
    while cluster.cloud.jobs().await != [0, 0, 0] {
        assert!(since.elapsed() < END_LIMIT, "jobs are left in the queue: {:?}", cluster.cloud.jobs().await);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let dead = cluster.controller(0).list_all("/dead-letters", 100).await;
    assert!(dead.is_empty(), "{} dead letters, the first: {}", dead.len(), dead[0]);
    cluster.stop(STOP_LIMIT).await;
}

/// Each call has one invocation with one end, which both controllers tell alike and which is what its caller was told.
async fn judge(cluster: &Cluster, seen: &[(usize, Seen)]) {
    let controllers = [cluster.controller(0), cluster.controller(1)];
    let mut ids = HashMap::new();
    let since = Instant::now();
    for (i, seen) in seen {
        let id = match seen {
            Seen::Answered { id, .. } | Seen::Accepted { id } => id,
        };
        if let Some(other) = ids.insert(id.clone(), *i) {
            panic!("calls {i} and {other} have one invocation {id}");
        }
        let record = loop {
            let record = controllers[i % 2].status(id).await;
            if is_final(&record) {
                break record;
            }
            assert!(since.elapsed() < END_LIMIT, "call {i} has not ended: {record}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        assert_eq!((&record["status"], &record["result"]["i"]), (&json!("SUCCESS"), &json!(i)), "{record}");
        assert_eq!(record["result"]["id"], json!(id), "the result of another invocation: {record}");
        let again = controllers[(i + 1) % 2].status(id).await;
        assert_eq!(again["result"], record["result"], "call {i} has two results");
        if let Seen::Answered { result, .. } = seen {
            assert_eq!(result, &record["result"], "call {i} was answered one thing, and another is kept");
        }
    }
    let mut listed: HashMap<String, usize> = HashMap::new();
    for record in controllers[0].list_all("/functions/work/logs", 100).await {
        *listed.entry(record["requestId"].as_str().expect("an id").to_owned()).or_default() += 1;
    }
    assert!(listed.values().all(|count| *count == 1), "a record is listed twice");
    assert!(ids.keys().all(|id| listed.contains_key(id)), "a record is not listed");
}
