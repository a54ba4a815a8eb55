//! What calls leave behind: stored behind the answer where the store is far, and named by no record before it is there.

use super::*;
use crate::domain::outcome::Lost;

fn far() -> Bench {
    let bench = bench();
    bench.world.far.store(true, Ordering::SeqCst);
    bench
}

impl Bench {
    fn has(&self, outcome: &Outcome) -> bool {
        let artifacts = self.world.artifacts.lock().unwrap();
        outcome.artifacts().all(|digest| artifacts.contains_key(&digest))
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_what_goes_far() {
    let bench = far();
    let f = bench.function();
    let way = bench.world.way.lock().await;
    let call = bench.invocation(&f, "file");
    let outcome = bench.worker.execute(call.clone(), ACQUIRE, None).await.unwrap();
    assert_eq!((outcome.status, outcome.output_files[0].name.as_str()), (Status::Success, "a.txt"));
    assert!(!bench.has(&outcome));
    let mut storing = bench.worker.storing(call.id).expect("it is on its way");
    assert!(bench.worker.storing(call.id).is_none(), "told to one");
    assert!(tokio::time::timeout(Duration::from_secs(5), &mut storing).await.is_err());
    assert_eq!(bench.worker.metrics.uploads_under_way.get(), 1);
    drop(way);
    assert_eq!(storing.await, Some(vec![]));
    assert!(bench.has(&outcome));
    assert_eq!(bench.worker.metrics.uploads_under_way.get(), 0);
    assert_eq!(bench.worker.metrics.uploads.with_label_values(&["stored"]).get(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_stored_here_is_there_before_the_answer() {
    let bench = bench();
    let call = bench.invocation(&bench.function(), "file");
    let outcome = bench.worker.execute(call.clone(), ACQUIRE, None).await.unwrap();
    assert!(bench.has(&outcome) && bench.worker.storing(call.id).is_none());
    // A call that leaves nothing has nothing on its way.
    let call = bench.invocation(&bench.function(), "echo");
    bench.worker.execute(call.clone(), ACQUIRE, None).await.unwrap();
    assert!(bench.worker.storing(call.id).is_none());
}

#[tokio::test(start_paused = true)]
async fn as_much_as_may_be_is_on_its_way_and_the_rest_waits() {
    let bench = far();
    let f = bench.function();
    let way = bench.world.way.lock().await;
    let calls: Vec<_> = (0..2).map(|_| bench.invocation(&f, "file")).collect();
    let large = Bytes::from(vec![7; 100 << 20]);
    let first = bench.worker.uploads.take(calls[0].id, None, vec![("a".to_owned(), large.clone())]).await;
    let second = bench.worker.uploads.take(calls[1].id, None, vec![("b".to_owned(), large)]);
    tokio::pin!(second);
    assert!(tokio::time::timeout(Duration::from_secs(1), &mut second).await.is_err(), "no more than that in memory");
    drop(way);
    let second = second.await;
    assert!(first.lost.is_empty() && second.lost.is_empty());
    assert!(bench.worker.storing(calls[0].id).is_some() && bench.worker.storing(calls[1].id).is_none());
}

#[tokio::test(start_paused = true)]
async fn what_does_not_arrive_is_told() {
    let bench = far();
    bench.world.arrive.store(0, Ordering::SeqCst);
    let call = bench.invocation(&bench.world.deploy("f", Runtime::Python, 1000), "file");
    bench.world.arrive.store(0, Ordering::SeqCst);
    let mut outcome = bench.worker.execute(call.clone(), ACQUIRE, None).await.unwrap();
    let lost = bench.worker.storing(call.id).unwrap().await.unwrap();
    assert_eq!(lost.iter().map(|lost| lost.sha256).collect::<Vec<_>>(), [outcome.output_files[0].sha256]);
    outcome.lose(&lost);
    assert!(outcome.output_files.is_empty() && outcome.result.is_none());
    assert_eq!(
        failure(&outcome),
        (ErrorType::PlatformError, "store the output file a.txt: the store is not available: full")
    );
    // One that hangs is lost as well, before anybody's patience is.
    let _way = bench.world.way.lock().await;
    let call = bench.invocation(&bench.world.deploy("g", Runtime::Python, 1000), "file");
    bench.worker.execute(call.clone(), ACQUIRE, None).await.unwrap();
    let lost = bench.worker.storing(call.id).unwrap().await.unwrap();
    assert_eq!(lost[0].why, "not stored within 60 s");
}

#[tokio::test(start_paused = true)]
async fn the_record_of_a_job_names_nothing_that_is_not_there() {
    let bench = far();
    let f = bench.function();
    // Code is there already.
    bench.outcome(&f, "echo").await;
    let way = bench.world.way.lock().await;
    let id = bench.world.enqueue(&f, "file");
    bench.worker.start();
    sleep(Duration::from_secs(15)).await;
    assert_eq!(bench.world.record(id).status, Status::Running);
    assert_eq!(bench.world.extended.load(Ordering::SeqCst), 1, "its lease is held meanwhile");
    drop(way);
    let record = bench.finished(id).await;
    assert_eq!((record.status, record.output_files[0].name.as_str()), (Status::Success, "a.txt"));
    bench.world.arrive.store(0, Ordering::SeqCst);
    let lost = bench.finished(bench.world.enqueue(&f, "file")).await;
    assert_eq!((lost.status, lost.attempt, lost.error_type), (Status::Dead, 3, Some(ErrorType::PlatformError)));
    assert!(lost.output_files.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_drain_waits_for_what_is_on_its_way() {
    let bench = far();
    let f = bench.function();
    bench.outcome(&f, "echo").await;
    let way = bench.world.way.lock().await;
    let outcome = bench.outcome(&f, "file").await;
    let worker = bench.worker.clone();
    let drain = tokio::spawn(async move { worker.drain(Duration::from_secs(30)).await });
    sleep(Duration::from_secs(10)).await;
    assert!(!drain.is_finished());
    drop(way);
    assert!(drain.await.unwrap());
    assert!(bench.has(&outcome));
}

#[test]
fn an_answered_record_tells_of_what_was_lost() {
    let world = World::new();
    let f = world.deploy("f", Runtime::Python, 1000);
    let id = world.enqueue(&f, "file");
    let mut record = world.record(id);
    let file = |n: u8| crate::domain::outcome::OutputFile {
        name: format!("{n}.txt"),
        size_bytes: 1,
        sha256: crate::domain::ids::Digest([n; 32]),
    };
    (record.status, record.stderr) = (Status::Success, "a line without an end".to_owned());
    (record.output_files, record.log_artifact) = (vec![file(1), file(2)], Some(file(3).sha256));
    record.lose(&[2, 3, 9].map(|n| Lost { sha256: file(n).sha256, why: "full".to_owned() }));
    assert_eq!((record.status, record.error_type, record.log_artifact), (Status::Success, None, None));
    assert_eq!(record.output_files, [file(1)]);
    assert_eq!(record.stderr, "a line without an end\n[output file lost: 2.txt could not be stored]\n");
}
