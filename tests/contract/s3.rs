//! Artifacts in S3 as a world, over the emulator, and what is promised of them alone.
//!
//! Left out of the common suite: `what_nobody_uses_is_collected_when_its_time_is_over` and `what_is_referred_to_stays`. A bucket's
//! lifecycle rule collects, and the emulator's never acts. Instead: what is touched, stored again or referred to is young again
//! (`what_is_touched_is_young_again`, `what_functions_refer_to_is_kept`).

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::primitives::ByteStream;
use bytes::Bytes;
use faasd::adapters::aws::s3::{Artifacts, RENEW_AGE, keep_referenced};
use faasd::config::Config;
use faasd::domain::ids::Digest;
use faasd::domain::time::Timestamp;
use faasd::ports::artifacts::{ArtifactError, ArtifactStore};
use faasd::ports::clock::Clock;

use super::clock::ShiftedClock;
use super::embedded::EmbeddedWorld;
use super::samples;
use super::world::World;
use crate::support::moto::Moto;

const PREFIX: &str = "artifacts/";

/// A fleet's artifacts, in a bucket of their own; all else is a single node's.
pub struct S3World {
    client: Client,
    config: Config,
    clock: Arc<ShiftedClock>,
    /// A node's disk; a killed one's successor finds it.
    dir: tempfile::TempDir,
    others: EmbeddedWorld,
    artifacts: Arc<dyn ArtifactStore>,
}

fn key(digest: Digest) -> String {
    let name = digest.to_string();
    format!("{PREFIX}{}/{}", &name[..2], &name[2..])
}

async fn open(config: &Config, dir: &Path, clock: Arc<ShiftedClock>) -> Arc<dyn ArtifactStore> {
    Arc::new(Artifacts::open(&Moto::parallel().sdk().await, &config.aws, dir, clock).unwrap())
}

impl S3World {
    async fn modified(&self, digest: Digest) -> i64 {
        let found = self.client.head_object().bucket(&self.config.aws.bucket).key(key(digest)).send().await.unwrap();
        found.last_modified().unwrap().secs()
    }

    async fn overwrite(&self, digest: Digest, bytes: &'static [u8]) {
        let request = self.client.put_object().bucket(&self.config.aws.bucket).key(key(digest));
        request.body(ByteStream::from_static(bytes)).send().await.unwrap();
    }

    async fn forget_cached(&mut self) {
        self.dir = tempfile::tempdir().unwrap();
        self.artifacts = open(&self.config, self.dir.path(), self.clock.clone()).await;
    }
}

impl World for S3World {
    async fn open(mut config: Config) -> Self {
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        let sdk = Moto::parallel().sdk().await;
        let client = Client::from_conf(aws_sdk_s3::config::Builder::from(&sdk).force_path_style(true).build());
        config.aws.bucket = format!("bucket-{}-{}", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed));
        config.aws.bucket_prefix = PREFIX.to_owned();
        let region = aws_sdk_s3::types::BucketLocationConstraint::EuCentral1;
        let place = aws_sdk_s3::types::CreateBucketConfiguration::builder().location_constraint(region).build();
        client.create_bucket().bucket(&config.aws.bucket).create_bucket_configuration(place).send().await.unwrap();
        let (clock, dir) = (ShiftedClock::new(), tempfile::tempdir().unwrap());
        let artifacts = open(&config, dir.path(), clock.clone()).await;
        let others = EmbeddedWorld::open(Config::default()).await;
        Self { client, config, clock, dir, others, artifacts }
    }

    async fn killed(mut self) -> Self {
        self.artifacts = open(&self.config, self.dir.path(), self.clock.clone()).await;
        self
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    async fn pass(&self, time: Duration) {
        self.clock.pass(time);
    }

    async fn sweep(&self) {}

    fn damage(&self, artifact: Digest) {
        tokio::task::block_in_place(|| {
            tokio::runtime::Handle::current().block_on(self.overwrite(artifact, b"worthless"));
        });
    }

    fn rest(&self) -> &EmbeddedWorld {
        &self.others
    }

    fn artifacts(&self) -> Arc<dyn ArtifactStore> {
        self.artifacts.clone()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_touched_is_young_again() {
    let world = S3World::open(Config::default()).await;
    let [touched, stored_again, left] = [&b"touched"[..], b"stored again", b"left"].map(Bytes::from_static);
    let artifacts = world.artifacts();
    let mut digests = Vec::new();
    for bytes in [&touched, &stored_again, &left] {
        digests.push(artifacts.put(bytes.clone()).await.unwrap());
    }
    let before = world.modified(digests[2]).await;
    // S3 keeps seconds.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert!(artifacts.touch(digests[0]).await.unwrap());
    assert_eq!(world.modified(digests[0]).await, before, "a young one is only looked at");
    world.pass(RENEW_AGE + Duration::from_secs(10)).await;
    assert!(artifacts.touch(digests[0]).await.unwrap());
    artifacts.put(stored_again.clone()).await.unwrap();
    assert!(world.modified(digests[0]).await > before && world.modified(digests[1]).await > before);
    assert_eq!(world.modified(digests[2]).await, before);
    assert_eq!(artifacts.get(digests[0]).await.unwrap(), touched);
    assert!(!artifacts.touch(Digest([9; 32])).await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_functions_refer_to_is_kept() {
    let world = S3World::open(Config::default()).await;
    let code = world.artifacts().put(Bytes::from_static(b"code")).await.unwrap();
    let (function, mut version) = samples::function("ann", "hello");
    version.code = code;
    world.registry().create(&function, &version).await.unwrap();
    let before = world.modified(code).await;
    tokio::time::sleep(Duration::from_millis(1100)).await;
    world.pass(RENEW_AGE + Duration::from_secs(10)).await;
    assert_eq!(keep_referenced(&*world.registry(), &*world.artifacts()).await.unwrap(), 1);
    assert!(world.modified(code).await > before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_artifacts_go_in_parts_and_come_whole() {
    let mut world = S3World::open(Config::default()).await;
    let bytes: Bytes = (0..20u32 << 20).map(|n| (n % 251) as u8).collect::<Vec<u8>>().into();
    let digest = world.artifacts().put(bytes.clone()).await.unwrap();
    assert_eq!(world.artifacts().put(bytes.clone()).await.unwrap(), digest);
    world.forget_cached().await;
    assert!(world.artifacts().get(digest).await.unwrap() == bytes);
    let head = world.client.head_object().bucket(&world.config.aws.bucket).key(key(digest)).send().await.unwrap();
    assert!(head.e_tag().unwrap().trim_matches('"').ends_with("-3"), "in three parts: {head:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_read_is_on_disk_and_damage_there_is_mended() {
    let world = S3World::open(Config::default()).await;
    let digest = world.artifacts().put(Bytes::from_static(b"precious")).await.unwrap();
    let mut readers = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let artifacts = world.artifacts();
        readers.spawn(async move { artifacts.get(digest).await.unwrap() });
    }
    assert!(readers.join_all().await.iter().all(|bytes| bytes == "precious"));
    let name = digest.to_string();
    let file = world.dir.path().join(&name[..2]).join(&name[2..]);
    // Written behind the reader.
    while !file.exists() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    world.overwrite(digest, b"worthless").await;
    assert_eq!(world.artifacts().get(digest).await.unwrap(), "precious", "from the disk");
    std::fs::write(&file, b"damaged").unwrap();
    let got = world.artifacts().get(digest).await;
    assert!(matches!(got, Err(ArtifactError::Store(faasd::ports::StoreError::Corrupt(_)))), "{got:?}");
    // Storing it again mends what is not whole.
    world.artifacts().put(Bytes::from_static(b"precious")).await.unwrap();
    world.overwrite(digest, b"shorter").await;
    world.artifacts().put(Bytes::from_static(b"precious")).await.unwrap();
    assert_eq!(world.artifacts().get(digest).await.unwrap(), "precious");
}
