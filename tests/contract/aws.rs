//! The fleet's store as a world, on the functional emulator of AWS and on the fast one, and what is promised of it alone.
//!
//! Each world has tables of its own. Time that a test lets pass moves the clock of the store: nothing that is over may be seen
//! though nobody deletes anything by age. What is not asked of DynamoDB is the embedded store's.

mod cost;
pub mod fleet;
mod letters;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use aws_config::SdkConfig;
use faasd::adapters::aws::dynamodb::{DynamoDb, create_tables, tables};
use faasd::adapters::local_vault::LocalVault;
use faasd::config::Config;
use faasd::domain::ids::{Digest, KeyId, Owner};
use faasd::domain::invocation::{Mode, StoredRecord};
use faasd::domain::job::{DeadLetter, Payload};
use faasd::domain::key::{Key, Scope};
use faasd::domain::outcome::Status;
use faasd::domain::time::Timestamp;
use faasd::ports::clock::Clock as _;
use faasd::ports::invocations::{Created, Idempotency, InvocationStore, Lookup, RecordQuery};
use faasd::ports::keys::KeyStore;
use faasd::ports::lessons::Lessons;
use faasd::ports::queue::DeadLetters;
use faasd::ports::registry::{Registry, RegistryError};
use faasd::ports::vault::Vault;

use super::clock::ShiftedClock;
use super::embedded::EmbeddedWorld;
use super::samples::{self, ended, finished, function, json, queued, worker_id};
use super::world::World;
use crate::support::dynamodb::FastDynamo;
use crate::support::faults::Faults;
use crate::support::moto::{self, Moto};

/// Who answers as DynamoDB.
pub trait Service: Sized + Send + Sync + 'static {
    /// Records that a suite writes behind at once.
    const BEHIND: usize;

    async fn start() -> Self;
    async fn sdk(&self) -> SdkConfig;
}

/// The functional emulator: some hundred requests a second, of all tests together.
pub struct OnMoto(&'static Moto);

impl Service for OnMoto {
    const BEHIND: usize = 30;

    async fn start() -> Self {
        Self(Moto::serial())
    }

    async fn sdk(&self) -> SdkConfig {
        self.0.sdk().await
    }
}

/// The fast one, in this process.
pub struct OnFast(FastDynamo);

impl Service for OnFast {
    const BEHIND: usize = 1000;

    async fn start() -> Self {
        Self(FastDynamo::start())
    }

    async fn sdk(&self) -> SdkConfig {
        moto::sdk(&self.0.endpoint()).await
    }
}

pub struct AwsWorld<S = OnMoto> {
    service: S,
    sdk: SdkConfig,
    config: Config,
    clock: Arc<ShiftedClock>,
    vault: Arc<dyn Vault>,
    store: DynamoDb,
    metrics: prometheus::Registry,
    rest: EmbeddedWorld,
    _dir: tempfile::TempDir,
}

impl<S: Service> AwsWorld<S> {
    async fn open_on(service: S, mut config: Config) -> Self {
        let sdk = service.sdk().await;
        config.aws.table_prefix = format!("t{}", uuid::Uuid::new_v4().simple());
        create_tables(&aws_sdk_dynamodb::Client::new(&sdk), &config.aws.table_prefix).await.unwrap();
        let (clock, dir) = (ShiftedClock::new(), tempfile::tempdir().unwrap());
        let vault = Arc::new(LocalVault::open(&config.secrets, dir.path()).unwrap());
        let rest = EmbeddedWorld::open(config.clone()).await;
        let metrics = prometheus::Registry::new();
        let store = DynamoDb::open(&sdk, &config, clock.clone(), vault.clone(), rest.artifacts(), &metrics).unwrap();
        Self { service, sdk, config, clock, vault, store, metrics, rest, _dir: dir }
    }

    /// Another node of the same fleet.
    pub fn another(&self, metrics: &prometheus::Registry) -> DynamoDb {
        let artifacts = self.rest.artifacts();
        DynamoDb::open(&self.sdk, &self.config, self.clock.clone(), self.vault.clone(), artifacts, metrics).unwrap()
    }

    /// Requests sent so far, by operation.
    fn requests(&self) -> Vec<(String, u64)> {
        let all = self.metrics.gather();
        let requests = all.iter().find(|family| family.name() == "faasd_dynamodb_requests_total");
        let mut counted: std::collections::BTreeMap<String, u64> = Default::default();
        for one in requests.into_iter().flat_map(|family| family.get_metric()) {
            let operation = one.get_label().iter().find(|label| label.name() == "operation").unwrap();
            *counted.entry(operation.value().to_owned()).or_default() += one.get_counter().get_value() as u64;
        }
        counted.into_iter().collect()
    }
}

impl<S: Service> World for AwsWorld<S> {
    const BEHIND: usize = S::BEHIND;
    const SOON: Duration = Duration::from_secs(5);

    async fn open(config: Config) -> Self {
        Self::open_on(S::start().await, config).await
    }

    /// What another process finds: nothing is flushed.
    async fn killed(mut self) -> Self {
        self.metrics = prometheus::Registry::new();
        self.store = self.another(&self.metrics);
        self
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    async fn pass(&self, time: Duration) {
        self.clock.pass(time);
    }

    /// DynamoDB's to do, some day: what is over must not be seen before.
    async fn sweep(&self) {}

    fn damage(&self, artifact: Digest) {
        self.rest.damage(artifact);
    }

    fn rest(&self) -> &EmbeddedWorld {
        &self.rest
    }

    fn dead_letters(&self) -> Arc<dyn DeadLetters> {
        self.store.dead_letters.clone()
    }
    fn invocations(&self) -> Arc<dyn InvocationStore> {
        self.store.invocations.clone()
    }
    fn lessons(&self) -> Arc<dyn Lessons> {
        self.store.lessons.clone()
    }
    fn registry(&self) -> Arc<dyn Registry> {
        self.store.registry.clone()
    }
    fn keys(&self) -> Arc<dyn KeyStore> {
        self.store.keys.clone()
    }
}

async fn world() -> AwsWorld {
    AwsWorld::open(Config::default()).await
}

fn admin_key() -> Key {
    Key {
        id: KeyId(uuid::Uuid::now_v7()),
        name: "admin".to_owned(),
        description: String::new(),
        owner: Owner::new("admin"),
        scopes: vec![Scope::Admin],
        function: None,
        secret_sha256: *uuid::Uuid::new_v4().as_bytes().repeat(2).first_chunk().unwrap(),
        created_at: Timestamp(1_763_776_800_000),
        expires_at: None,
        last_used_at: None,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_are_made_once_and_another_make_is_refused() {
    let sdk = Moto::serial().sdk().await;
    let client = aws_sdk_dynamodb::Client::new(&sdk);
    let prefix = format!("t{}", uuid::Uuid::new_v4().simple());
    let made = create_tables(&client, &prefix).await.unwrap();
    let names: Vec<String> = tables::TABLES.iter().map(|table| table.full_name(&prefix)).collect();
    assert_eq!(made.iter().map(|made| made.name.clone()).collect::<Vec<_>>(), names);
    assert!(made.iter().all(|made| made.is_new));
    assert!(create_tables(&client, &prefix).await.unwrap().iter().all(|made| !made.is_new));
    for table in tables::TABLES {
        let ttl = client.describe_time_to_live().table_name(table.full_name(&prefix)).send().await.unwrap();
        let ttl = ttl.time_to_live_description.unwrap();
        let on = ttl.time_to_live_status.is_some_and(|status| status.as_str() == "ENABLED");
        assert_eq!(on, table.expires, "{}", table.name);
        assert_eq!(ttl.attribute_name.as_deref(), table.expires.then_some("ttl"), "{}", table.name);
    }
    client.delete_table().table_name(&names[0]).send().await.unwrap();
    use aws_sdk_dynamodb::types::{AttributeDefinition, KeySchemaElement};
    client
        .create_table()
        .table_name(&names[0])
        .billing_mode("PAY_PER_REQUEST".into())
        .attribute_definitions(
            AttributeDefinition::builder().attribute_name("other").attribute_type("S".into()).build().unwrap(),
        )
        .key_schema(KeySchemaElement::builder().attribute_name("other").key_type("HASH".into()).build().unwrap())
        .send()
        .await
        .unwrap();
    let refused = create_tables(&client, &prefix).await.unwrap_err().to_string();
    assert!(refused.contains(&names[0]) && refused.contains("other keys"), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_table_says_what_to_do() {
    let world = world().await;
    let name = tables::INVOCATIONS.full_name(&world.config.aws.table_prefix);
    aws_sdk_dynamodb::Client::new(&world.sdk).delete_table().table_name(name).send().await.unwrap();
    let error = world.invocations().get(samples::invocation_id()).await.unwrap_err();
    assert!(error.is_retryable() && error.to_string().contains("faasd admin create-tables"), "{error}");
}

/// A record that no item could hold.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_record_lies_among_the_artifacts_and_reads_the_same() {
    let world = world().await;
    let record = queued("ann");
    world.invocations().create(record.clone(), None).await.unwrap();
    let mut large = Arc::unwrap_or_clone(ended(&record, 1, Status::Success, world.now()));
    let value = format!("\"{}\"", "x".repeat(1 << 20));
    large.record.result = Some(serde_json::value::RawValue::from_string(value).unwrap().into());
    large.record.stdout = "y".repeat(1 << 20);
    let large = Arc::new(large);
    assert!(world.invocations().finish(large.clone()).await.unwrap());
    let world = world.killed().await;
    let Lookup::Found(found) = world.invocations().get(record.record.request_id).await.unwrap() else { panic!() };
    assert_eq!(json(&found), json(&large));
    let query = RecordQuery { limit: 10, owner: Some(Owner::new("ann")), ..Default::default() };
    let listed = world.invocations().list(&query).await.unwrap();
    assert_eq!(json(&listed.items[0]), json(&large));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_record_hides_no_other() {
    let world = world().await;
    let (small, mut large) = (finished("ann", Status::Success), Arc::unwrap_or_clone(finished("ann", Status::Success)));
    large.record.stdout = "y".repeat(100_000);
    let large = Arc::new(large);
    assert!(world.invocations().finish(small.clone()).await.unwrap());
    assert!(world.invocations().finish(large.clone()).await.unwrap());
    world.damage(world.artifacts().put(large.json().unwrap()).await.unwrap());
    assert!(world.invocations().get(large.record.request_id).await.is_err());
    let listed = world.invocations().list(&RecordQuery { limit: 10, ..Default::default() }).await.unwrap();
    assert_eq!(listed.items.iter().map(|one| one.record.request_id).collect::<Vec<_>>(), [small.record.request_id]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn open_calls_that_somebody_waits_for_are_found_whosever_they_are() {
    let world = world().await;
    let store = world.invocations();
    let waited_for = |owner: &str| {
        let queued = queued(owner);
        StoredRecord::new(queued.owner, Mode::Sync, queued.record)
    };
    let (ann, bob, ended_since, taken_over) =
        (waited_for("ann"), waited_for("bob"), waited_for("ann"), waited_for("bob"));
    for (record, n) in [&ann, &bob, &ended_since, &taken_over, &queued("ann")].into_iter().zip(0..) {
        let used = Idempotency {
            owner: record.owner.clone(),
            function: record.record.function_id,
            key: format!("{n}"),
            request: Digest([n; 32]),
        };
        assert!(matches!(store.create(record.clone(), Some(used)).await.unwrap(), Created::New));
    }
    // One in the queue alone: its job sees to its end.
    store.create(waited_for("ann"), None).await.unwrap();
    assert!(store.finish(ended(&ended_since, 1, Status::Failed, world.now())).await.unwrap());
    assert!(store.start(taken_over.record.request_id, 2, samples::worker_id(), world.now()).await.unwrap());
    let found = async |max| {
        let found = store.waited_for(world.now(), max).await.unwrap();
        found.iter().map(|one| (one.record.request_id, one.record.attempt)).collect::<BTreeSet<_>>()
    };
    let all = [(&ann, 1), (&bob, 1), (&taken_over, 2)].map(|(one, attempt)| (one.record.request_id, attempt));
    assert_eq!(found(10).await, BTreeSet::from(all));
    assert_eq!(found(2).await.len(), 2);
    let before = Timestamp(ann.record.created_at.as_millis() - 60_000);
    assert!(store.waited_for(before, 10).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closing_writes_what_was_behind() {
    let world = world().await;
    let records: Vec<_> = (0..60).map(|_| finished("ann", Status::Success)).collect();
    for record in &records {
        world.invocations().finish_behind(record.clone()).unwrap();
    }
    world.store.close().await;
    assert!(world.invocations().finish_behind(finished("ann", Status::Success)).is_err());
    let world = world.killed().await;
    for record in &records {
        assert!(matches!(world.invocations().get(record.record.request_id).await.unwrap(), Lookup::Found(_)));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_several_controllers_that_start_at_once_one_makes_the_first_key() {
    let world = world().await;
    let nodes: Vec<DynamoDb> = (0..8).map(|_| world.another(&prometheus::Registry::new())).collect();
    for _ in 0..2 {
        let tries = nodes.iter().map(|node| async { node.keys.add_first(&admin_key()).await.unwrap() });
        let made = futures_util::future::join_all(tries).await;
        assert_eq!(made.into_iter().filter(|made| *made).count(), 1);
        let keys = world.keys().list().await.unwrap();
        assert_eq!(keys.len(), 1);
        assert_eq!(world.keys().by_secret(&keys[0].secret_sha256).await.unwrap().as_ref(), Some(&keys[0]));
        // Where nobody has a key any more, the next start makes one again.
        assert!(world.keys().revoke(keys[0].id).await.unwrap());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn environments_lie_sealed() {
    let world = world().await;
    let (function, mut version) = function("ann", "hello");
    version.env = [("TOKEN".to_owned(), "s3cret-value".to_owned())].into();
    world.registry().create(&function, &version).await.unwrap();
    let read = world.registry().version(version.key()).await.unwrap().unwrap();
    assert_eq!(read.env["TOKEN"], "s3cret-value");
    let client = aws_sdk_dynamodb::Client::new(&world.sdk);
    let name = tables::FUNCTIONS.full_name(&world.config.aws.table_prefix);
    let all = client.scan().table_name(name).send().await.unwrap();
    let mut looked_at = 0;
    for value in all.items().iter().flat_map(|item| item.values()) {
        let bytes = value.as_b().map_or_else(|_| format!("{value:?}").into_bytes(), |blob| blob.as_ref().to_vec());
        assert!(!bytes.windows(6).any(|window| window == b"s3cret"));
        looked_at += 1;
    }
    assert!(looked_at > 10, "{looked_at}");
}

/// Of the requests some are refused, some throttled, some answered with an error after they were done. What is tried again must not
/// take its own work for somebody else's, nor do it twice. `LOST_ANSWERS_SEED` repeats the faults of a run; it is printed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_was_lost_is_no_other_s_work() {
    let world = AwsWorld::<OnFast>::open(Config::default()).await;
    let seed = std::env::var("LOST_ANSWERS_SEED").map_or_else(
        |_| uuid::Uuid::new_v4().as_u128() as u64,
        |text| text.parse().expect("LOST_ANSWERS_SEED is a whole number"),
    );
    println!("LOST_ANSWERS_SEED={seed}");
    world.service.0.faults(Faults {
        seed,
        failing: 0.15,
        throttled: 0.05,
        conflicting: 0.1,
        unprocessed: 0.1,
        ..Faults::default()
    });
    for n in 0..150_u64 {
        let (record, function_id, mut was_lost) = (queued("ann"), samples::function_id(), false);
        let id = record.record.request_id;
        // A caller repeats what the store could not do.
        let used = || {
            let (owner, key) = (Owner::new("ann"), "k".to_owned());
            Some(Idempotency { owner, function: function_id, key, request: Digest([1; 32]) })
        };
        loop {
            match world.invocations().create(record.clone(), used()).await {
                Ok(Created::New) => break,
                // Only where this caller was told before that it was not done.
                Ok(Created::Existing(existing)) if was_lost && existing == id => break,
                Ok(other) => panic!("{other:?}"),
                Err(error) => was_lost = error.is_retryable(),
            }
        }
        while let Err(error) = world.invocations().start(id, 1, worker_id(), world.now()).await {
            assert!(error.is_retryable(), "{error}");
        }
        // Two claim the end: one has it, and the store agrees with what it said.
        let ends = [1, 1].map(|attempt| ended(&record, attempt, Status::Success, Timestamp(1_763_776_900_000 + n)));
        let finish = |end: Arc<faasd::domain::invocation::StoredRecord>| {
            let invocations = world.invocations();
            async move { invocations.finish(end).await }
        };
        let (one, other) = tokio::join!(finish(ends[0].clone()), finish(ends[1].clone()));
        let said: Vec<bool> = [one, other].into_iter().flatten().collect();
        assert!(said.iter().filter(|stored| **stored).count() <= 1, "{said:?}");
        // One of two was stored, unless one of them could not say.
        assert!(said.len() < 2 || said.contains(&true), "{said:?}");
    }
    let names: Vec<String> = (0..30).map(|n| format!("f{n}")).collect();
    for name in &names {
        let ((function, version), mut was_lost) = (function("ann", name), false);
        loop {
            match world.registry().create(&function, &version).await {
                Ok(()) => break,
                // Told before that it could not be done, though it was.
                Err(RegistryError::NameTaken) if was_lost => break,
                Err(RegistryError::Store(error)) if error.is_retryable() => was_lost = true,
                Err(error) => panic!("{error}"),
            }
        }
    }
    world.service.0.faults(Faults::default());
    assert_eq!(world.registry().count(None).await.unwrap(), 30);
    assert_eq!(world.registry().list(None, 100, None).await.unwrap().items.len(), 30);
}
