//! The artifact store: bytes named by their digest, whole or not at all.

use std::time::Duration;

use bytes::Bytes;
use faasd::config::Config;
use faasd::domain::ids::Digest;
use faasd::domain::job::Payload;
use faasd::ports::StoreError;
use faasd::ports::artifacts::ArtifactError;
use sha2::{Digest as _, Sha256};

use super::embedded::EmbeddedWorld;
#[cfg(feature = "aws")]
use super::s3::S3World;
use super::samples;
use super::world::World;

contract!(worlds: [embedded => EmbeddedWorld], tests: [
    bytes_come_back_under_their_digest,
    artifacts_survive_a_kill,
    storing_again_changes_nothing,
    many_may_store_the_same_at_once,
    damage_is_told_never_served,
    what_nobody_uses_is_collected_when_its_time_is_over,
    what_is_referred_to_stays,
]);

// Why the others are not here stands in `s3.rs`.
#[cfg(feature = "aws")]
contract!(worlds: [s3 => S3World], tests: [
    bytes_come_back_under_their_digest,
    artifacts_survive_a_kill,
    storing_again_changes_nothing,
    many_may_store_the_same_at_once,
    damage_is_told_never_served,
]);

/// Beyond the retention of artifacts.
fn config() -> (Config, Duration) {
    let mut config = Config::default();
    config.retention.logs_s = 1000;
    (config, Duration::from_secs(1001))
}

async fn bytes_come_back_under_their_digest<W: World>() {
    let world = W::open(Config::default()).await;
    for bytes in [Bytes::new(), Bytes::from_static(b"hello"), Bytes::from(vec![7; 3 << 20])] {
        let digest = world.artifacts().put(bytes.clone()).await.unwrap();
        assert_eq!(digest.0, <[u8; 32]>::from(Sha256::digest(&bytes)));
        assert_eq!(world.artifacts().get(digest).await.unwrap(), bytes);
    }
    let absent = world.artifacts().get(Digest([9; 32])).await;
    assert!(matches!(absent, Err(ArtifactError::NotFound)));
}

async fn artifacts_survive_a_kill<W: World>() {
    let world = W::open(Config::default()).await;
    let digest = world.artifacts().put(Bytes::from_static(b"code")).await.unwrap();
    let world = world.killed().await;
    assert_eq!(world.artifacts().get(digest).await.unwrap(), "code");
}

async fn storing_again_changes_nothing<W: World>() {
    let world = W::open(Config::default()).await;
    let first = world.artifacts().put(Bytes::from_static(b"code")).await.unwrap();
    assert_eq!(world.artifacts().put(Bytes::from_static(b"code")).await.unwrap(), first);
    assert_eq!(world.artifacts().get(first).await.unwrap(), "code");
}

async fn many_may_store_the_same_at_once<W: World>() {
    let world = W::open(Config::default()).await;
    let bytes = Bytes::from(vec![3; 100_000]);
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..100 {
        let (artifacts, bytes) = (world.artifacts(), bytes.clone());
        tasks.spawn(async move {
            let digest = artifacts.put(bytes.clone()).await.unwrap();
            assert_eq!(artifacts.get(digest).await.unwrap(), bytes);
        });
    }
    while let Some(task) = tasks.join_next().await {
        task.unwrap();
    }
}

async fn damage_is_told_never_served<W: World>() {
    let world = W::open(Config::default()).await;
    let digest = world.artifacts().put(Bytes::from_static(b"precious")).await.unwrap();
    world.damage(digest);
    let got = world.artifacts().get(digest).await;
    assert!(matches!(got, Err(ArtifactError::Store(StoreError::Corrupt(_)))), "{got:?}");
}

async fn what_nobody_uses_is_collected_when_its_time_is_over<W: World>() {
    let (config, over) = config();
    let world = W::open(config).await;
    let old = world.artifacts().put(Bytes::from_static(b"old")).await.unwrap();
    let touched = world.artifacts().put(Bytes::from_static(b"touched")).await.unwrap();
    let stored_again = world.artifacts().put(Bytes::from_static(b"stored again")).await.unwrap();
    world.sweep().await;
    assert!(world.artifacts().get(old).await.is_ok());
    world.pass(over).await;
    assert!(world.artifacts().touch(touched).await.unwrap());
    world.artifacts().put(Bytes::from_static(b"stored again")).await.unwrap();
    let young = world.artifacts().put(Bytes::from_static(b"young")).await.unwrap();
    world.sweep().await;
    assert!(matches!(world.artifacts().get(old).await, Err(ArtifactError::NotFound)));
    assert!(!world.artifacts().touch(old).await.unwrap());
    for kept in [touched, stored_again, young] {
        assert!(world.artifacts().get(kept).await.is_ok());
    }
}

async fn what_is_referred_to_stays<W: World>() {
    let (config, over) = config();
    let world = W::open(config).await;
    let put = async |bytes| world.artifacts().put(Bytes::from_static(bytes)).await.unwrap();
    let (code, payload, letter) = (put(b"code").await, put(b"payload").await, put(b"letter").await);
    let (function, mut version) = samples::function("ann", "hello");
    version.code = code;
    world.registry().create(&function, &version).await.unwrap();
    let queue = world.queue();
    let mut job = samples::job("ann");
    job.payload = Payload::Stored(letter);
    queue.send(job, Duration::ZERO).await.unwrap();
    world.pass(over).await;
    let lease = queue.receive(1, usize::MAX, Duration::ZERO).await.unwrap().remove(0);
    queue.bury(&lease.token, "it failed").await.unwrap();
    let mut job = samples::job("ann");
    job.payload = Payload::Stored(payload);
    queue.send(job, Duration::ZERO).await.unwrap();
    world.sweep().await;
    for kept in [code, payload, letter] {
        assert!(world.artifacts().get(kept).await.is_ok());
    }
}
