//! The ways that a call takes: by claim, by placement, from one worker to the next.

use std::io::{Read, Write};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use uuid::Uuid;

use super::rig::*;
use crate::domain::function::Version;
use crate::domain::ids::WorkerId;
use crate::domain::outcome::{ErrorType, Outcome, StartType, Status};
use crate::ports::executor::{ExecuteError, Executor, Order, OrderError, WorkerState, WorkerView};
use crate::ports::sandbox::{LogSink, Stream};

fn place(outcome: &Outcome) -> (WorkerId, u32) {
    let place = outcome.place.expect("it ran at a worker of another process");
    (place.worker, place.attempt)
}

#[tokio::test]
async fn a_call_runs_at_a_worker_of_another_process_and_the_next_finds_it_warm() {
    let rig = Rig::new();
    let (node, f) = (rig.node().await, rig.function("f"));
    let (fleet, metrics) = rig.fleet(1).await;
    let first = run(&fleet, &f, "echo").await.unwrap();
    assert_eq!((first.status, first.start_type), (Status::Success, Some(StartType::Cold)));
    assert_eq!(first.result.as_ref().unwrap().get(), "\"echo\"");
    assert_eq!((first.stdout.text.as_str(), place(&first)), ("printed", (node.id, 1)));
    for _ in 0..20 {
        let next = run(&fleet, &f, "echo").await.unwrap();
        assert_eq!((next.status, next.start_type), (Status::Success, Some(StartType::Warm)));
    }
    // Claims that it keeps: nobody else is asked.
    assert_eq!(metrics.sent.with_label_values(&["held"]).get(), 20);
    let raised = run(&fleet, &f, "raise").await.unwrap();
    assert_eq!(raised.failure.unwrap().error_type, ErrorType::FunctionError);
}

#[tokio::test]
async fn a_claim_that_is_offered_is_taken_and_a_stale_one_costs_one_more() {
    let rig = Rig::new();
    let (node, f) = (rig.node().await, rig.function("f"));
    let (fleet, metrics) = rig.fleet(1).await;
    run(&fleet, &f, "echo").await.unwrap();
    // What it kept lapses and is offered to whoever comes.
    tokio::time::sleep(Duration::from_millis(600)).await;
    let (other, other_metrics) = rig.fleet(1).await;
    let taken = run(&other, &f, "echo").await.unwrap();
    assert_eq!(taken.start_type, Some(StartType::Warm));
    assert_eq!(other_metrics.sent.with_label_values(&["claim"]).get(), 1);
    // Claims on sandboxes that are not there.
    rig.local.claims.offer(f.key(), node.id, 3).await.unwrap();
    node.worker.retire(f.key());
    let cold = run(&fleet, &f, "echo").await.unwrap();
    assert_eq!((cold.status, cold.start_type), (Status::Success, Some(StartType::Cold)));
    assert!(metrics.stale.get() >= 3, "{}", metrics.stale.get());
}

#[tokio::test]
async fn a_waiting_call_is_stolen_by_a_claim_of_another_worker() {
    let rig = Rig::new();
    let f = rig.function("f");
    let mut narrow = rig.config.clone();
    narrow.pool.concurrency_max = 1;
    let busy = rig.node_with(&narrow).await;
    let (fleet, metrics) = rig.fleet(1).await;
    let long = {
        let (fleet, f) = (fleet.clone(), f.clone());
        tokio::spawn(async move { run(&fleet, &f, "sleep 3000").await.unwrap() })
    };
    until("it runs", || busy.worker.view().unwrap().active == 1).await;
    let waiting = {
        let (fleet, f) = (fleet.clone(), f.clone());
        tokio::spawn(async move { run(&fleet, &f, "echo").await.unwrap() })
    };
    until("it waits", || busy.worker.view().unwrap().waiting == 1).await;
    // Another worker comes that has one warm.
    let other = rig.node().await;
    let warmed = other.worker.execute(invocation(&f, "echo"), ACQUIRE, None).await.unwrap();
    assert_eq!(warmed.status, Status::Success);
    let stolen = waiting.await.unwrap();
    assert_eq!((place(&stolen), stolen.start_type), ((other.id, 1), Some(StartType::Stolen)));
    assert_eq!(metrics.stolen.get(), 1);
    assert_eq!(busy.worker.view().unwrap().waiting, 0, "taken back where it waited");
    assert_eq!(place(&long.await.unwrap()), (busy.id, 1));
}

#[tokio::test]
async fn a_worker_that_dies_in_mid_call_costs_an_attempt_and_no_error() {
    let rig = Rig::new();
    let f = rig.function("f");
    let mut nodes = [rig.node().await, rig.node().await];
    let (fleet, metrics) = rig.fleet(2).await;
    let call = {
        let (fleet, f) = (fleet.clone(), f.clone());
        tokio::spawn(async move { run(&fleet, &f, "sleep 500").await.unwrap() })
    };
    let mut at = 0;
    until("it runs", || nodes.iter().any(|node| node.worker.view().unwrap().active == 1)).await;
    if nodes[1].worker.view().unwrap().active == 1 {
        at = 1;
    }
    nodes[at].kill();
    let outcome = call.await.unwrap();
    assert_eq!((outcome.status, place(&outcome)), (Status::Success, (nodes[1 - at].id, 2)));
    assert_eq!(metrics.retries.with_label_values(&["lost"]).get(), 1);
    // Nobody left: not an error of the call's, and the queue may have it, begun or not.
    let call = {
        let (fleet, f) = (fleet.clone(), f.clone());
        tokio::spawn(async move { run(&fleet, &f, "sleep 500").await.unwrap_err() })
    };
    until("it runs", || nodes[1 - at].worker.view().unwrap().active == 1).await;
    nodes[1 - at].kill();
    let begun = call.await.unwrap();
    assert!(matches!(begun, ExecuteError::Unreachable(_)), "{begun:?}");
    assert_eq!(metrics.retries.with_label_values(&["lost"]).get(), 2);
    let nobody = run(&fleet, &f, "echo").await.unwrap_err();
    assert!(matches!(nobody, ExecuteError::Unreachable(_)), "{nobody:?}");
}

/// A call that ends whoever runs it must not go on for ever.
#[tokio::test]
async fn a_call_that_was_lost_as_often_as_it_has_attempts_fails() {
    let rig = Rig::new();
    let f = rig.function("f");
    let mut nodes = Vec::new();
    for _ in 0..=rig.config.queue.attempts_max {
        nodes.push(rig.node().await);
    }
    let (fleet, metrics) = rig.fleet(nodes.len()).await;
    let call = {
        let (fleet, f) = (fleet.clone(), f.clone());
        tokio::spawn(async move { run(&fleet, &f, "sleep 2000").await })
    };
    for _ in 0..rig.config.queue.attempts_max {
        let runs = |node: &Node| node.worker.view().unwrap().active == 1;
        until("it runs", || nodes.iter().any(runs)).await;
        let at = nodes.iter().position(runs).unwrap();
        nodes.remove(at).kill();
    }
    let lost = call.await.unwrap().unwrap_err();
    assert!(matches!(lost, ExecuteError::Platform(_)), "{lost:?}");
    assert_eq!(metrics.retries.with_label_values(&["lost"]).get(), u64::from(rig.config.queue.attempts_max));
}

#[tokio::test]
async fn workers_that_end_in_order_one_after_the_other_fail_no_call() {
    let rig = Rig::new();
    let f = rig.function("f");
    let mut nodes = vec![rig.node().await, rig.node().await];
    let (fleet, _) = rig.fleet(2).await;
    let calls: Vec<_> = (0..8)
        .map(|_| {
            let (fleet, f) = (fleet.clone(), f.clone());
            tokio::spawn(async move {
                let mut done = 0;
                let until = tokio::time::Instant::now() + Duration::from_secs(3);
                while tokio::time::Instant::now() < until {
                    let outcome =
                        run(&fleet, &f, "sleep 5").await.unwrap_or_else(|error| panic!("{error} after {done}"));
                    assert_eq!((outcome.status, place(&outcome).1), (Status::Success, 1));
                    done += 1;
                }
                done
            })
        })
        .collect();
    for _ in 0..3 {
        let new = rig.node().await;
        until("it is known", || fleet.others().iter().any(|view| view.id == new.id)).await;
        nodes.push(new);
        nodes.remove(0).end(&rig).await;
    }
    let mut done = 0;
    for call in calls {
        done += call.await.unwrap();
    }
    assert!(done > 100, "{done}");
}

#[tokio::test]
async fn a_cordoned_worker_gets_no_calls_until_it_may_again() {
    let rig = Rig::new();
    let f = rig.function("f");
    let node = rig.node().await;
    let (fleet, _) = rig.fleet(1).await;
    run(&fleet, &f, "echo").await.unwrap();
    fleet.order(node.id, Order::Cordon).await.unwrap();
    until("it is known", || fleet.others()[0].state == WorkerState::Cordoned).await;
    assert!(matches!(run(&fleet, &f, "echo").await, Err(ExecuteError::Unreachable(_))));
    fleet.order(node.id, Order::Uncordon).await.unwrap();
    until("it is known", || fleet.others()[0].state == WorkerState::Active).await;
    let warm = run(&fleet, &f, "echo").await.unwrap();
    assert_eq!(warm.start_type, Some(StartType::Warm), "what was warm stayed");
    let asked = tokio::spawn({
        let worker = node.worker.clone();
        async move { worker.drain_asked().await }
    });
    fleet.order(node.id, Order::Drain).await.unwrap();
    tokio::time::timeout(SOON, asked).await.unwrap().unwrap();
    let unknown = fleet.order(WorkerId(Uuid::nil()), Order::Drain).await;
    assert!(matches!(unknown, Err(OrderError::NotFound)));
}

#[tokio::test]
async fn a_call_is_cancelled_where_it_runs() {
    let rig = Rig::new();
    let (node, f) = (rig.node().await, rig.function("f"));
    let (fleet, _) = rig.fleet(1).await;
    let call = invocation(&f, "sleep 9000");
    let running = tokio::spawn({
        let (fleet, call) = (fleet.clone(), call.clone());
        async move { fleet.execute(call, ACQUIRE, None).await.unwrap() }
    });
    until("it runs", || node.worker.view().unwrap().active == 1).await;
    assert!(fleet.cancel(call.id));
    assert_eq!(running.await.unwrap().status, Status::Cancelled);
    assert!(!fleet.cancel(call.id), "it is over");
}

/// A worker of which only the address is true.
async fn impostor(rig: &Rig, answer: &'static [u8]) -> WorkerId {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    // Ends with the test's process; it holds nothing.
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut read = [0; 1024];
            let _ = stream.read(&mut read);
            let _ = stream.write_all(answer);
        }
    });
    let id = WorkerId(Uuid::now_v7());
    rig.local.roster.beat(&view(id, address)).await.unwrap();
    id
}

fn view(id: WorkerId, address: String) -> WorkerView {
    WorkerView {
        id,
        address,
        state: WorkerState::Active,
        pools: Default::default(),
        active: 0,
        waiting: 0,
        capacity: 64,
        load: 0.0,
        mean_ms: 0.0,
        last_seen: crate::domain::time::Timestamp(0),
    }
}

#[tokio::test]
async fn a_worker_that_is_none_costs_a_retry_and_not_an_error() {
    let rig = Rig::new();
    let node = rig.node().await;
    for answer in [&b"HTTP/1.1 200 OK\r\n\r\n"[..], b"\x00\x00\x00\x04\x00\x00\x00\x00\x00", b""] {
        impostor(&rig, answer).await;
    }
    let (fleet, metrics) = rig.fleet(4).await;
    for n in 0..8 {
        // Each version has its own order of workers.
        let f = rig.function(&format!("f{n}"));
        let outcome = run(&fleet, &f, "echo").await.unwrap();
        assert_eq!((outcome.status, place(&outcome)), (Status::Success, (node.id, 1)));
    }
    assert!(metrics.retries.with_label_values(&["unreachable"]).get() >= 1);
}

#[tokio::test]
async fn nobody_is_called_who_does_not_know_the_secret_and_nobody_may_call_without() {
    let rig = Rig::new();
    let (node, f) = (rig.node().await, rig.function("f"));
    let (stranger, _) = rig.fleet_with(&"another secret of the right length".repeat(2), 1).await;
    let refused = run(&stranger, &f, "echo").await.unwrap_err();
    assert!(matches!(refused, ExecuteError::Unreachable(_)), "{refused:?}");
    assert_eq!(node.worker.view().unwrap().active, 0);
    // Without a proof nothing is read, whatever is sent.
    let stream = tokio::net::TcpStream::connect(node.address).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http2::handshake(
        hyper_util::rt::TokioExecutor::new(),
        hyper_util::rt::TokioIo::new(stream),
    )
    .await
    .unwrap();
    tokio::spawn(connection);
    for (path, version, status) in [
        ("/fleet/execute", "1", 401),
        ("/fleet/order", "1", 401),
        ("/fleet/execute", "2", 426),
        ("/elsewhere", "1", 404),
    ] {
        let request = http::Request::post(format!("http://faasd{path}"))
            .header("faasd-fleet", version)
            .header("faasd-proof", format!("1.{}", "00".repeat(32)))
            .header("faasd-digest", "00".repeat(32))
            .body(http_body_util::Full::new(bytes::Bytes::from_static(b"junk")))
            .unwrap();
        assert_eq!(sender.send_request(request).await.unwrap().status(), status, "{path}");
    }
}

#[tokio::test]
async fn a_worker_tells_how_it_is_to_whoever_asks() {
    let rig = Rig::new();
    let node = rig.node().await;
    let ask = async |path: &str, method: &str| {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut stream = tokio::net::TcpStream::connect(node.address).await.unwrap();
        let request = format!("{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    };
    assert!(ask("/health", "GET").await.starts_with("HTTP/1.1 200"));
    assert!(ask("/ready", "GET").await.contains("\"ready\""));
    assert!(ask("/metrics", "GET").await.contains("faasd_fleet_unauthorised_total"));
    assert!(ask("/run", "POST").await.starts_with("HTTP/1.1 404"));
    assert!(ask("/fleet/execute", "POST").await.starts_with("HTTP/1.1 404"), "calls come over HTTP/2 only");
    node.worker.cordon(true);
    assert!(ask("/ready", "GET").await.starts_with("HTTP/1.1 503"));
}

#[derive(Default)]
struct Lines(Mutex<Vec<(Stream, String)>>, bool);

impl LogSink for Lines {
    fn line(&self, stream: Stream, line: &str) {
        self.0.lock().unwrap().push((stream, line.to_owned()));
    }

    fn is_heard(&self) -> bool {
        self.1
    }
}

#[tokio::test]
async fn lines_are_told_as_they_are_printed_where_somebody_listens() {
    let rig = Rig::new();
    let (_node, f) = (rig.node().await, rig.function("f"));
    let (fleet, _) = rig.fleet(1).await;
    for (heard, lines) in [(true, vec![(Stream::Stdout, "printed".to_owned())]), (false, vec![])] {
        let log = Arc::new(Lines(Mutex::default(), heard));
        let outcome = run_heard(&fleet, &f, "echo", Some(log.clone())).await.unwrap();
        assert_eq!(outcome.stdout.text, "printed", "in the record in any case");
        assert_eq!(*log.0.lock().unwrap(), lines);
    }
}

#[tokio::test]
async fn a_controller_is_answered_before_outputs_are_stored_and_told_when_they_are() {
    let rig = Rig::new();
    let (mut node, f) = (rig.node().await, rig.function("f"));
    let (fleet, _) = rig.fleet(1).await;
    rig.world.far.store(true, Ordering::SeqCst);
    let call = async |program: &str| {
        let call = invocation(&f, program);
        let outcome = fleet.execute(call.clone(), ACQUIRE, None).await.unwrap();
        (outcome, fleet.storing(call.id))
    };
    assert!(call("echo").await.1.is_none());
    let way = rig.world.way.lock().await;
    let (outcome, storing) = call("file").await;
    assert_eq!(outcome.output_files[0].name, "a.txt");
    let mut storing = storing.expect("it is on its way");
    assert!(tokio::time::timeout(Duration::from_millis(100), &mut storing).await.is_err());
    drop(way);
    assert_eq!(storing.await, Some(vec![]));
    rig.world.arrive.store(0, Ordering::SeqCst);
    let (outcome, storing) = call("file").await;
    let lost = storing.unwrap().await.unwrap();
    assert_eq!(lost[0].sha256, outcome.output_files[0].sha256);
    // A worker that dies meanwhile leaves it open.
    let _way = rig.world.way.lock().await;
    let (_, storing) = call("file").await;
    node.kill();
    drop(node);
    assert_eq!(tokio::time::timeout(SOON, storing.unwrap()).await, Ok(None));
}

#[tokio::test]
async fn a_new_version_is_prepared_at_the_workers_that_it_will_be_called_at() {
    let rig = Rig::new();
    let f = rig.function("f");
    let nodes = [rig.node().await, rig.node().await, rig.node().await];
    let (fleet, _) = rig.fleet(3).await;
    let unpacked = || nodes.iter().map(|node| node.packages.0.load(Ordering::SeqCst)).sum::<usize>();
    fleet.prepare(&f);
    until("two have its code", || unpacked() == 2).await;
    let first = run(&fleet, &f, "echo").await.unwrap();
    assert_eq!((first.status, unpacked()), (Status::Success, 2), "called where it was prepared");
    let gone = Version { number: 9, ..(*f).clone() };
    fleet.prepare(&gone);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(unpacked(), 2);
}

#[tokio::test]
async fn what_workers_say_of_memory_is_gathered() {
    let rig = Rig::new();
    let nodes = [rig.node().await, rig.node().await];
    let (fleet, _) = rig.fleet(2).await;
    assert_eq!(fleet.resizes().await, []);
    let f = Arc::new(Version { auto_memory: true, ..(*rig.function("f")).clone() });
    for node in &nodes {
        while node.worker.resizes().await.is_empty() {
            assert_eq!(
                node.worker.execute(invocation(&f, "echo"), ACQUIRE, None).await.unwrap().status,
                Status::Success
            );
        }
    }
    let said = nodes[0].worker.resizes().await;
    assert_eq!((said.len(), said[0].0), (1, f.key()));
    assert_eq!(fleet.resizes().await, said, "one answer for each version");
}

#[tokio::test]
async fn a_job_is_followed_from_another_process() {
    let rig = Rig::new();
    let (node, f) = (rig.node().await, rig.function("f"));
    let (fleet, _) = rig.fleet(1).await;
    let heard = async |id, worker| {
        let log = Arc::new(Lines(Mutex::default(), true));
        let came = fleet.follow(id, worker, log.clone()).await;
        (came, std::mem::take(&mut *log.0.lock().unwrap()))
    };
    let id = rig.world.enqueue(&f, "sleep 1000");
    until("it runs", || node.worker.view().unwrap().active == 1).await;
    assert!(!heard(id, WorkerId(Uuid::nil())).await.0, "nobody knows that worker");
    // Two who follow it; both come after its line.
    let followed = async { tokio::join!(heard(id, node.id), heard(id, node.id)) };
    let (one, two) = tokio::time::timeout(SOON, followed).await.expect("it ends with the job");
    assert_eq!(one, (true, vec![(Stream::Stdout, "printed".to_owned())]));
    assert_eq!(two, one);
    until("it has ended", || rig.world.record(id).status.is_final()).await;
    assert_eq!(heard(id, node.id).await, (false, vec![]), "it does not run there any more");
    assert_eq!(rig.world.record(id).status, Status::Success, "who follows takes nothing back");
}

#[tokio::test]
async fn a_worker_that_drains_for_long_is_heard_of_all_the_while() {
    let rig = Rig::new();
    let (node, f) = (rig.node().await, rig.function("f"));
    let (fleet, _) = rig.fleet(1).await;
    let long = tokio::spawn(async move { run(&fleet, &f, "sleep 2000").await.unwrap() });
    until("it runs", || node.worker.view().unwrap().active == 1).await;
    let worker = node.worker.clone();
    let drain = tokio::spawn(async move { worker.drain(SOON).await });
    let mut heard = std::collections::BTreeSet::new();
    while !drain.is_finished() {
        let view = rig.local.roster.workers().await.unwrap().remove(0);
        if view.state == WorkerState::Draining {
            heard.insert(view.last_seen.as_millis());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(heard.len() >= 4, "{heard:?}");
    assert!(drain.await.unwrap());
    assert_eq!(long.await.unwrap().status, Status::Success);
}
