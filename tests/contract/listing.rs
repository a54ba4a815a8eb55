//! Listings of invocation records: newest first, narrowed, paged, and without results that are over.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use faasd::config::Config;
use faasd::domain::ids::{InvocationId, Owner};
use faasd::domain::invocation::StoredRecord;
use faasd::domain::outcome::Status;
use faasd::domain::time::Timestamp;
use faasd::ports::StoreError;
use faasd::ports::invocations::RecordQuery;

#[cfg(feature = "aws")]
use super::aws::{AwsWorld, OnFast};
use super::embedded::EmbeddedWorld;
use super::samples::{ended, function_id, queued_at};
use super::world::World;

contract!(worlds: [
    embedded => EmbeddedWorld,
    #[cfg(feature = "aws")] aws => AwsWorld,
    #[cfg(feature = "aws")] fast => AwsWorld<OnFast>,
], tests: [
    records_are_listed_newest_first,
    every_field_narrows,
    what_runs_is_listed_as_running,
    pages_have_neither_gaps_nor_repeats_while_records_come,
    a_page_of_long_outputs_ends_early,
    an_expired_result_is_not_shown,
    a_foreign_cursor_is_refused,
]);

// Not on AWS: a table has no end, and records go by age alone.
contract!(worlds: [embedded_bounded => EmbeddedWorld], tests: [the_oldest_records_make_room]);

async fn store<W: World>(world: &W, record: &StoredRecord, status: Status) -> InvocationId {
    let record = ended(record, 1, status, record.record.created_at);
    assert!(world.invocations().finish(record.clone()).await.unwrap());
    record.record.request_id
}

async fn list<W: World>(world: &W, query: RecordQuery) -> Vec<Arc<StoredRecord>> {
    let page = world.invocations().list(&RecordQuery { limit: 500, ..query }).await.unwrap();
    assert_eq!(page.next_cursor, None);
    page.items
}

async fn ids<W: World>(world: &W, query: RecordQuery) -> Vec<InvocationId> {
    list(world, query).await.iter().map(|stored| stored.record.request_id).collect()
}

async fn records_are_listed_newest_first<W: World>() {
    let world = W::open(Config::default()).await;
    let now = world.now().as_millis();
    let mut wanted = Vec::new();
    // The order of creation counts, whatever the order of arrival.
    for back in [30, 10, 20, 0] {
        let record = queued_at("ann", function_id(), Timestamp(now - back));
        wanted.push((now - back, store(&world, &record, Status::Success).await));
    }
    wanted.sort_by(|a, b| b.cmp(a));
    let wanted: Vec<_> = wanted.into_iter().map(|(_, id)| id).collect();
    assert_eq!(ids(&world, RecordQuery::default()).await, wanted);
    let world = world.killed().await;
    assert_eq!(ids(&world, RecordQuery::default()).await, wanted);
}

async fn every_field_narrows<W: World>() {
    let world = W::open(Config::default()).await;
    let functions = [function_id(), function_id()];
    let now = world.now().as_millis();
    let mut all = Vec::new();
    for n in 0..24_u64 {
        let owner = ["ann", "bob"][n as usize % 2];
        let function = functions[n as usize / 2 % 2];
        let status = [Status::Success, Status::Failed, Status::Timeout][n as usize % 3];
        let record = queued_at(owner, function, Timestamp(now - 1000 + n));
        all.push((store(&world, &record, status).await, owner, function, status, now - 1000 + n));
    }
    all.reverse();
    let queries = [None, Some("ann")].into_iter().flat_map(|owner| {
        let statuses = [None, Some(Status::Success), Some(Status::Failed)];
        statuses.into_iter().flat_map(move |status| {
            let spans =
                [(None, None), (Some(now - 990), None), (None, Some(now - 985)), (Some(now - 995), Some(now - 980))];
            [None, Some(functions[0])].into_iter().flat_map(move |function| {
                spans.map(|(since, until)| RecordQuery {
                    owner: owner.map(Owner::new),
                    status,
                    function,
                    since: since.map(Timestamp),
                    until: until.map(Timestamp),
                    ..Default::default()
                })
            })
        })
    });
    for query in queries {
        let wanted = all.iter().filter(|(_, owner, function, status, at)| {
            query.owner.as_ref().is_none_or(|wanted| *wanted == Owner::new(owner))
                && query.function.is_none_or(|wanted| wanted == *function)
                && query.status.is_none_or(|wanted| wanted == *status)
                && query.since.is_none_or(|since| *at >= since.as_millis())
                && query.until.is_none_or(|until| *at <= until.as_millis())
        });
        let wanted: Vec<_> = wanted.map(|one| one.0).collect();
        assert_eq!(ids(&world, query.clone()).await, wanted, "{query:?}");
    }
    let one = RecordQuery { invocation: Some(all[3].0), ..Default::default() };
    assert_eq!(ids(&world, one.clone()).await, [all[3].0]);
    let of_another = RecordQuery { owner: Some(Owner::new("eve")), ..one };
    assert_eq!(ids(&world, of_another).await, []);
}

async fn what_runs_is_listed_as_running<W: World>() {
    let world = W::open(Config::default()).await;
    let record = queued_at("ann", function_id(), world.now());
    let id = record.record.request_id;
    world.invocations().create(record, None).await.unwrap();
    let with = |status| RecordQuery { status: Some(status), ..Default::default() };
    assert_eq!(ids(&world, with(Status::Queued)).await, [id]);
    world.invocations().start(id, 1, super::samples::worker_id(), world.now()).await.unwrap();
    assert_eq!(ids(&world, with(Status::Queued)).await, []);
    let running = list(&world, with(Status::Running)).await;
    assert_eq!(running[0].record.status, Status::Running);
}

async fn pages_have_neither_gaps_nor_repeats_while_records_come<W: World>() {
    let world = W::open(Config::default()).await;
    let (function, now) = (function_id(), world.now().as_millis());
    let mut before = BTreeSet::new();
    for n in 0..100 {
        // Ten share each millisecond.
        let record = queued_at("ann", function, Timestamp(now - 50 + n / 10));
        before.insert(store(&world, &record, Status::Success).await);
    }
    let mut seen = Vec::new();
    let mut query = RecordQuery { function: Some(function), limit: 7, ..Default::default() };
    loop {
        let page = world.invocations().list(&query).await.unwrap();
        assert!(page.items.len() <= 7);
        seen.extend(page.items.iter().map(|stored| stored.record.request_id));
        let later = queued_at("ann", function, world.now());
        store(&world, &later, Status::Success).await;
        query.cursor = page.next_cursor;
        if query.cursor.is_none() {
            break;
        }
    }
    assert_eq!(seen.len(), 100);
    assert_eq!(seen.into_iter().collect::<BTreeSet<_>>(), before);
}

async fn a_page_of_long_outputs_ends_early<W: World>() {
    let world = W::open(Config::default()).await;
    for _ in 0..24 {
        let mut record = queued_at("ann", function_id(), world.now());
        record.record.stderr = "x".repeat(1 << 20);
        store(&world, &record, Status::Success).await;
    }
    let mut query = RecordQuery { limit: 500, ..Default::default() };
    let (mut pages, mut records) = (0, 0);
    loop {
        let page = world.invocations().list(&query).await.unwrap();
        (pages, records) = (pages + 1, records + page.items.len());
        query.cursor = page.next_cursor;
        if query.cursor.is_none() {
            break;
        }
    }
    assert_eq!(records, 24);
    assert!(pages > 1);
}

async fn an_expired_result_is_not_shown<W: World>() {
    let mut config = Config::default();
    config.retention.results_s = 100;
    let world = W::open(config).await;
    let (small, large) = (queued_at("ann", function_id(), world.now()), queued_at("ann", function_id(), world.now()));
    store(&world, &small, Status::Success).await;
    let mut large = Arc::unwrap_or_clone(ended(&large, 1, Status::Success, world.now()));
    let value = format!("\"{}\"", "x".repeat(100_000));
    large.record.result = Some(serde_json::value::RawValue::from_string(value).unwrap().into());
    world.invocations().finish(Arc::new(large)).await.unwrap();
    assert!(list(&world, RecordQuery::default()).await.iter().all(|stored| stored.record.result.is_some()));
    world.pass(Duration::from_secs(101)).await;
    for _ in 0..2 {
        let records = list(&world, RecordQuery::default()).await;
        assert_eq!(records.len(), 2);
        for stored in records {
            assert!(stored.record.result.is_none());
            assert_eq!(stored.record.stdout, "printed\n");
        }
        world.sweep().await;
    }
}

async fn the_oldest_records_make_room<W: World>() {
    let mut config = Config::default();
    config.retention.records_max = 10;
    let world = W::open(config).await;
    let mut stored = Vec::new();
    let waiting = queued_at("ann", function_id(), Timestamp(world.now().as_millis() - 500));
    world.invocations().create(waiting.clone(), None).await.unwrap();
    for n in 0..25 {
        let record = queued_at("ann", function_id(), Timestamp(world.now().as_millis() - 100 + n));
        stored.push(store(&world, &record, Status::Success).await);
    }
    world.sweep().await;
    // One place is taken by the record that still waits for its end: it is never dropped.
    let mut wanted: Vec<_> = stored[16..].iter().rev().copied().collect();
    wanted.push(waiting.record.request_id);
    assert_eq!(ids(&world, RecordQuery::default()).await, wanted);
}

async fn a_foreign_cursor_is_refused<W: World>() {
    let world = W::open(Config::default()).await;
    for garbage in ["", "nonsense", "' or 1=1"] {
        let query = RecordQuery { cursor: Some(garbage.to_owned()), limit: 5, ..Default::default() };
        let refused = world.invocations().list(&query).await;
        assert!(matches!(refused, Err(StoreError::InvalidCursor)), "{garbage}");
    }
}
