//! Jobs from their lease to their end.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_job_ends_in_one_final_record() {
    let bench = bench();
    let f = bench.function();
    let id = bench.world.enqueue(&f, "echo");
    bench.worker.start();
    let record = bench.finished(id).await;
    assert_eq!((record.status, record.attempt), (Status::Success, 1));
    assert!(record.started_at.is_some() && record.worker_id.is_some());
    sleep(Duration::from_millis(10)).await;
    assert_eq!(*bench.world.finished.lock().unwrap(), [id]);
    assert!(bench.world.leased.lock().unwrap().is_empty() && bench.world.jobs.lock().unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_failing_job_has_three_attempts_then_is_dead() {
    let bench = bench();
    let f = bench.function();
    let id = bench.world.enqueue(&f, "raise");
    bench.worker.start();
    let record = bench.finished(id).await;
    assert_eq!((record.status, record.attempt), (Status::Dead, 3));
    assert_eq!(record.error_type, Some(ErrorType::FunctionError));
    sleep(Duration::from_millis(10)).await;
    assert_eq!(*bench.world.buried.lock().unwrap(), [(id, "ValueError: no".to_owned())]);
    let delays = bench.world.given_back.lock().unwrap().clone();
    assert!(delays.len() == 2 && delays[1].0 > delays[0].0 && delays.iter().all(|(_, counted)| *counted));
}

#[tokio::test(start_paused = true)]
async fn a_failing_job_that_somebody_waits_for_is_over_at_once() {
    let bench = bench();
    let f = bench.function();
    let id = bench.world.enqueue_as(&f, "raise", Mode::Sync);
    bench.worker.start();
    let record = bench.finished(id).await;
    assert_eq!((record.status, record.attempt), (Status::Failed, 1));
    sleep(Duration::from_millis(10)).await;
    assert!(bench.world.buried.lock().unwrap().is_empty() && bench.world.leased.lock().unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_cordoned_worker_takes_no_jobs_until_it_may_again() {
    let bench = bench();
    let f = bench.function();
    bench.worker.start();
    assert!(bench.worker.cordon(true));
    assert_eq!(bench.worker.view().unwrap().state, WorkerState::Cordoned);
    let id = bench.world.enqueue(&f, "echo");
    sleep(Duration::from_secs(30)).await;
    assert_eq!(bench.world.record(id).status, Status::Queued);
    assert!(bench.worker.cordon(false));
    assert_eq!(bench.finished(id).await.status, Status::Success);
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_is_alone_and_cordoned_takes_work_when_neither_holds() {
    let bench = bench();
    bench.worker.start();
    let state = || bench.worker.view().unwrap().state;
    assert!(bench.worker.cordon_alone(true));
    assert_eq!(state(), WorkerState::Cordoned);
    assert!(bench.worker.cordon(false));
    assert_eq!(state(), WorkerState::Cordoned, "an order does not end the silence");
    assert!(bench.worker.cordon(true) && bench.worker.cordon_alone(false));
    assert_eq!(state(), WorkerState::Cordoned, "nor does company end an order");
    assert!(bench.worker.cordon(false));
    assert_eq!(state(), WorkerState::Active);
}

#[tokio::test(start_paused = true)]
async fn a_job_whose_version_is_gone_is_buried() {
    let bench = bench();
    let id = bench.world.enqueue(&bench.function(), "echo");
    bench.world.versions.lock().unwrap().clear();
    bench.worker.start();
    let record = bench.finished(id).await;
    assert_eq!((record.status, record.error_type), (Status::Dead, Some(ErrorType::PlatformError)));
}

#[tokio::test(start_paused = true)]
async fn a_job_that_the_queue_put_aside_ends_dead_without_being_run() {
    let bench = bench();
    let f = bench.function();
    let ids = [bench.world.enqueue(&f, "echo"), bench.world.enqueue(&f, "echo")];
    for (job, _, _) in bench.world.jobs.lock().unwrap().drain(..) {
        bench.world.put_aside.lock().unwrap().push_back((job, 9));
    }
    {
        let mut records = bench.world.records.lock().unwrap();
        Arc::make_mut(records.get_mut(&ids[1]).unwrap()).record.status = Status::Success;
    }
    bench.worker.start();
    let record = bench.finished(ids[0]).await;
    assert_eq!((record.status, record.error_type), (Status::Dead, Some(ErrorType::PlatformError)));
    sleep(Duration::from_millis(10)).await;
    let buried: Vec<_> = bench.world.buried.lock().unwrap().iter().map(|(id, _)| *id).collect();
    assert_eq!(buried, [ids[0]], "one that ended is no dead one");
    assert_eq!(bench.world.record(ids[1]).status, Status::Success);
    assert!(bench.world.leased.lock().unwrap().is_empty());
    assert_eq!(bench.driver.started.load(Ordering::SeqCst), 0);
}

#[tokio::test(start_paused = true)]
async fn a_job_that_was_lost_as_often_as_may_be_ends_dead_without_being_run() {
    let bench = bench();
    let f = bench.function();
    let ids = [bench.world.enqueue(&f, "echo"), bench.world.enqueue(&f, "echo"), bench.world.enqueue(&f, "echo")];
    for ((_, attempts, _), begun) in bench.world.jobs.lock().unwrap().iter_mut().zip([3, 2, 3]) {
        *attempts = begun;
    }
    {
        let mut records = bench.world.records.lock().unwrap();
        Arc::make_mut(records.get_mut(&ids[2]).unwrap()).record.status = Status::Success;
    }
    bench.worker.start();
    let lost = bench.finished(ids[0]).await;
    assert_eq!((lost.status, lost.error_type), (Status::Dead, Some(ErrorType::PlatformError)));
    assert_eq!(bench.finished(ids[1]).await.status, Status::Success, "the last attempt that may be");
    sleep(Duration::from_millis(10)).await;
    let buried: Vec<_> = bench.world.buried.lock().unwrap().iter().map(|(id, _)| *id).collect();
    assert_eq!(buried, [ids[0]], "one that ended is no dead one");
    assert!(bench.world.leased.lock().unwrap().is_empty());
    assert_eq!(bench.driver.started.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn a_final_record_is_not_run_again() {
    let bench = bench();
    let f = bench.function();
    let id = bench.world.enqueue(&f, "echo");
    {
        let mut records = bench.world.records.lock().unwrap();
        Arc::make_mut(records.get_mut(&id).unwrap()).record.status = Status::Cancelled;
    }
    bench.worker.start();
    sleep(Duration::from_secs(1)).await;
    assert!(bench.world.leased.lock().unwrap().is_empty() && bench.world.jobs.lock().unwrap().is_empty());
    assert_eq!(bench.driver.started.load(Ordering::SeqCst), 0);
}

#[tokio::test(start_paused = true)]
async fn a_lease_is_extended_and_a_lost_one_stops_the_call() {
    let bench = bench();
    let f = bench.world.deploy("f", Runtime::Python, 600_000);
    let id = bench.world.enqueue(&f, "sleep 25000");
    bench.worker.start();
    bench.finished(id).await;
    assert_eq!(bench.world.extended.load(Ordering::SeqCst), 2);
    let robbed = bench.world.enqueue(&f, "sleep 500000");
    bench.world.robbed.store(true, Ordering::SeqCst);
    sleep(Duration::from_secs(15)).await;
    assert_eq!(bench.world.record(robbed).status, Status::Running, "whoever has the lease writes the end");
    assert_eq!(bench.worker.view().unwrap().active, 0);
}

#[tokio::test(start_paused = true)]
async fn news_of_a_cancellation_stop_a_job() {
    let bench = bench();
    let f = bench.world.deploy("f", Runtime::Python, 600_000);
    let id = bench.world.enqueue(&f, "sleep 500000");
    bench.worker.start();
    sleep(Duration::from_secs(1)).await;
    Bus::publish(&*bench.world, News::Cancel(id));
    assert_eq!(bench.finished(id).await.status, Status::Cancelled);
}

#[tokio::test(start_paused = true)]
async fn jobs_leave_room_for_callers() {
    let bench = bench();
    let slow = bench.world.deploy("slow", Runtime::Python, 600_000);
    for _ in 0..50 {
        bench.world.enqueue(&slow, "sleep 500000");
    }
    bench.worker.start();
    sleep(Duration::from_secs(1)).await;
    // Of eight calls an owner may have seven, of which one is left for its callers.
    assert_eq!(bench.worker.view().unwrap().active, 6);
    assert_eq!(bench.outcome(&bench.world.deploy("f", Runtime::Python, 1000), "echo").await.status, Status::Success);
}
