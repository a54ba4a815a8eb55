//! Invocation records: durable, fenced by attempt, found until their time is over; and idempotency keys.

use std::sync::Arc;
use std::time::Duration;

use faasd::config::Config;
use faasd::domain::ids::{Digest, FunctionId, InvocationId, Owner};
use faasd::domain::invocation::StoredRecord;
use faasd::domain::outcome::Status;
use faasd::ports::invocations::{Created, Idempotency, Lookup};

#[cfg(feature = "aws")]
use super::aws::{AwsWorld, OnFast};
use super::embedded::EmbeddedWorld;
use super::samples::{ended, finished, function_id, invocation_id, json, queued, queued_at, worker_id};
use super::world::World;

contract!(worlds: [
    embedded => EmbeddedWorld,
    #[cfg(feature = "aws")] aws => AwsWorld,
    #[cfg(feature = "aws")] fast => AwsWorld<OnFast>,
], tests: [
    a_created_record_survives_a_kill,
    an_attempt_that_begins_shows,
    a_final_record_survives_a_kill_and_stands,
    an_earlier_attempt_is_fenced_off,
    one_of_many_outcomes_is_stored,
    an_outcome_without_a_record_is_stored_as_it_is,
    a_record_written_behind_is_found_at_once_and_kept,
    a_record_written_behind_respects_what_stands,
    one_key_makes_one_invocation,
    a_key_with_another_request_is_refused,
    keys_of_others_do_not_meet,
    a_key_lives_as_long_as_its_result,
    a_result_expires_and_an_unfinished_record_does_not,
    a_record_is_unknown_after_its_retention,
]);

async fn found<W: World>(world: &W, id: InvocationId) -> Arc<StoredRecord> {
    match world.invocations().get(id).await.unwrap() {
        Lookup::Found(record) => record,
        other => panic!("{other:?}"),
    }
}

async fn a_created_record_survives_a_kill<W: World>() {
    let mut world = W::open(Config::default()).await;
    let record = queued("ann");
    let id = record.record.request_id;
    assert!(matches!(world.invocations().create(record.clone(), None).await.unwrap(), Created::New));
    for _ in 0..2 {
        let found = found(&world, id).await;
        assert_eq!(json(&found), json(&record));
        assert_eq!((&found.owner, found.mode), (&record.owner, record.mode));
        world = world.killed().await;
    }
    assert!(matches!(world.invocations().get(invocation_id()).await.unwrap(), Lookup::Unknown));
}

async fn an_attempt_that_begins_shows<W: World>() {
    let mut world = W::open(Config::default()).await;
    let record = queued("ann");
    let (id, worker, at) = (record.record.request_id, worker_id(), world.now());
    world.invocations().create(record, None).await.unwrap();
    assert!(world.invocations().start(id, 1, worker, at).await.unwrap());
    for _ in 0..2 {
        let record = &found(&world, id).await.record;
        assert_eq!((record.status, record.attempt), (Status::Running, 1));
        assert_eq!((record.worker_id, record.started_at), (Some(worker), Some(at)));
        world = world.killed().await;
    }
    // The same attempt again, after a restart of the queue: allowed. An unknown record: not.
    assert!(world.invocations().start(id, 1, worker, at).await.unwrap());
    assert!(!world.invocations().start(invocation_id(), 1, worker, at).await.unwrap());
}

async fn a_final_record_survives_a_kill_and_stands<W: World>() {
    let mut world = W::open(Config::default()).await;
    let record = queued("ann");
    let id = record.record.request_id;
    world.invocations().create(record.clone(), None).await.unwrap();
    world.invocations().start(id, 1, worker_id(), world.now()).await.unwrap();
    let winner = ended(&record, 1, Status::Success, world.now());
    assert!(world.invocations().finish(winner.clone()).await.unwrap());
    for _ in 0..2 {
        let invocations = world.invocations();
        assert!(!invocations.start(id, 2, worker_id(), world.now()).await.unwrap());
        assert!(!invocations.finish(ended(&record, 2, Status::Failed, world.now())).await.unwrap());
        assert!(matches!(invocations.create(record.clone(), None).await.unwrap(), Created::New));
        assert_eq!(json(&*found(&world, id).await), json(&winner));
        world = world.killed().await;
    }
}

async fn an_earlier_attempt_is_fenced_off<W: World>() {
    let world = W::open(Config::default()).await;
    let record = queued("ann");
    let (invocations, id, now) = (world.invocations(), record.record.request_id, world.now());
    invocations.create(record.clone(), None).await.unwrap();
    assert!(invocations.start(id, 1, worker_id(), now).await.unwrap());
    assert!(invocations.start(id, 2, worker_id(), now).await.unwrap());
    assert!(!invocations.start(id, 1, worker_id(), now).await.unwrap());
    assert!(!invocations.finish(ended(&record, 1, Status::Success, now)).await.unwrap());
    assert_eq!(found(&world, id).await.record.status, Status::Running);
    assert!(invocations.finish(ended(&record, 2, Status::Failed, now)).await.unwrap());
    assert_eq!(found(&world, id).await.record.attempt, 2);
}

async fn one_of_many_outcomes_is_stored<W: World>() {
    let world = W::open(Config::default()).await;
    let record = queued("ann");
    let id = record.record.request_id;
    world.invocations().create(record.clone(), None).await.unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for attempt in 1..=100 {
        let (invocations, outcome) = (world.invocations(), ended(&record, attempt, Status::Success, world.now()));
        tasks.spawn(async move { invocations.finish(outcome.clone()).await.unwrap().then_some(outcome) });
    }
    let stored: Vec<_> = tasks.join_all().await.into_iter().flatten().collect();
    assert_eq!(stored.len(), 1);
    assert_eq!(json(&*found(&world, id).await), json(&stored[0]));
}

async fn an_outcome_without_a_record_is_stored_as_it_is<W: World>() {
    let world = W::open(Config::default()).await;
    let record = finished("ann", Status::Timeout);
    assert!(world.invocations().finish(record.clone()).await.unwrap());
    let world = world.killed().await;
    assert_eq!(json(&*found(&world, record.record.request_id).await), json(&record));
}

async fn a_record_written_behind_is_found_at_once_and_kept<W: World>() {
    let world = W::open(Config::default()).await;
    let records: Vec<_> = (0..W::BEHIND).map(|_| finished("ann", Status::Success)).collect();
    for record in &records {
        world.invocations().finish_behind(record.clone()).unwrap();
        assert_eq!(json(&*found(&world, record.record.request_id).await), json(record));
    }
    tokio::time::sleep(W::SOON).await;
    let world = world.killed().await;
    for record in &records {
        assert_eq!(json(&*found(&world, record.record.request_id).await), json(record));
    }
}

async fn a_record_written_behind_respects_what_stands<W: World>() {
    let world = W::open(Config::default()).await;
    let record = queued("ann");
    let (invocations, now) = (world.invocations(), world.now());
    invocations.create(record.clone(), None).await.unwrap();
    let winner = ended(&record, 1, Status::Success, now);
    assert!(invocations.finish(winner.clone()).await.unwrap());
    invocations.finish_behind(ended(&record, 2, Status::Failed, now)).unwrap();
    let behind = finished("ann", Status::Success);
    invocations.finish_behind(behind.clone()).unwrap();
    assert!(!invocations.finish(ended(&behind, 2, Status::Failed, now)).await.unwrap());
    assert_eq!(json(&*found(&world, behind.record.request_id).await), json(&behind));
    assert_eq!(json(&*found(&world, record.record.request_id).await), json(&winner));
}

fn used(owner: &str, function: FunctionId, key: &str, request: u8) -> Option<Idempotency> {
    Some(Idempotency { owner: Owner::new(owner), function, key: key.to_owned(), request: Digest([request; 32]) })
}

async fn one_key_makes_one_invocation<W: World>() {
    let world = W::open(Config::default()).await;
    let function = function_id();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..100 {
        let invocations = world.invocations();
        tasks.spawn(async move {
            let record = queued("ann");
            let id = record.record.request_id;
            (id, invocations.create(record, used("ann", function, "k", 1)).await.unwrap())
        });
    }
    let answers = tasks.join_all().await;
    let new: Vec<_> = answers.iter().filter(|(_, created)| matches!(created, Created::New)).collect();
    assert_eq!(new.len(), 1);
    let winner = new[0].0;
    for (id, created) in &answers {
        match created {
            Created::New => {}
            Created::Existing(existing) => {
                assert_eq!(*existing, winner);
                assert!(matches!(world.invocations().get(*id).await.unwrap(), Lookup::Unknown));
            }
            Created::KeyReused => panic!("the request is the same"),
        }
    }
    let world = world.killed().await;
    let again = world.invocations().create(queued("ann"), used("ann", function, "k", 1)).await.unwrap();
    assert!(matches!(again, Created::Existing(id) if id == winner), "{again:?}");
}

async fn a_key_with_another_request_is_refused<W: World>() {
    let world = W::open(Config::default()).await;
    let function = function_id();
    world.invocations().create(queued("ann"), used("ann", function, "k", 1)).await.unwrap();
    let record = queued("ann");
    let id = record.record.request_id;
    let refused = world.invocations().create(record, used("ann", function, "k", 2)).await.unwrap();
    assert!(matches!(refused, Created::KeyReused), "{refused:?}");
    assert!(matches!(world.invocations().get(id).await.unwrap(), Lookup::Unknown));
}

async fn keys_of_others_do_not_meet<W: World>() {
    let world = W::open(Config::default()).await;
    let function = function_id();
    for used in [
        used("ann", function, "k", 1),
        used("bob", function, "k", 1),
        used("ann", function_id(), "k", 1),
        used("ann", function, "K", 1),
    ] {
        let created = world.invocations().create(queued("ann"), used).await.unwrap();
        assert!(matches!(created, Created::New), "{created:?}");
    }
}

async fn a_key_lives_as_long_as_its_result<W: World>() {
    let mut config = Config::default();
    config.retention.results_s = 100;
    let world = W::open(config).await;
    let (function, record) = (function_id(), queued("ann"));
    let id = record.record.request_id;
    let again = async || world.invocations().create(queued("ann"), used("ann", function, "k", 1)).await.unwrap();
    world.invocations().create(record.clone(), used("ann", function, "k", 1)).await.unwrap();
    // It is still to run: however long that takes, the key is taken.
    world.pass(Duration::from_secs(200)).await;
    world.sweep().await;
    assert!(matches!(again().await, Created::Existing(existing) if existing == id));
    world.invocations().finish(ended(&record, 1, Status::Success, world.now())).await.unwrap();
    world.pass(Duration::from_secs(90)).await;
    world.sweep().await;
    assert!(matches!(again().await, Created::Existing(existing) if existing == id));
    world.pass(Duration::from_secs(20)).await;
    assert!(matches!(again().await, Created::New));
}

async fn a_result_expires_and_an_unfinished_record_does_not<W: World>() {
    let mut config = Config::default();
    config.retention.results_s = 100;
    let world = W::open(config).await;
    let (done, waiting) = (queued("ann"), queued("ann"));
    world.invocations().create(done.clone(), None).await.unwrap();
    world.invocations().create(waiting.clone(), None).await.unwrap();
    world.invocations().finish(ended(&done, 1, Status::Success, world.now())).await.unwrap();
    world.pass(Duration::from_secs(99)).await;
    found(&world, done.record.request_id).await;
    world.pass(Duration::from_secs(2)).await;
    let expired = world.invocations().get(done.record.request_id).await.unwrap();
    assert!(matches!(&expired, Lookup::Expired { owner, .. } if &*owner.0 == "ann"), "{expired:?}");
    found(&world, waiting.record.request_id).await;
}

async fn a_record_is_unknown_after_its_retention<W: World>() {
    let mut config = Config::default();
    config.retention.results_s = 10;
    config.retention.logs_s = 100;
    let world = W::open(config).await;
    let record = queued_at("ann", function_id(), world.now());
    let id = record.record.request_id;
    world.invocations().finish(ended(&record, 1, Status::Success, world.now())).await.unwrap();
    world.pass(Duration::from_secs(50)).await;
    world.sweep().await;
    assert!(matches!(world.invocations().get(id).await.unwrap(), Lookup::Expired { .. }));
    world.pass(Duration::from_secs(51)).await;
    world.sweep().await;
    assert!(matches!(world.invocations().get(id).await.unwrap(), Lookup::Unknown));
}
