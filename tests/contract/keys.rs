//! The key store.

use faasd::config::Config;
use faasd::domain::ids::{KeyId, Owner};
use faasd::domain::key::{Key, Scope};
use faasd::domain::time::Timestamp;

#[cfg(feature = "aws")]
use super::aws::{AwsWorld, OnFast};
use super::embedded::EmbeddedWorld;
use super::samples::function;
use super::world::World;

contract!(worlds: [
    embedded => EmbeddedWorld,
    #[cfg(feature = "aws")] aws => AwsWorld,
    #[cfg(feature = "aws")] fast => AwsWorld<OnFast>,
], tests: [
    a_key_is_found_by_its_secret_and_survives_a_kill,
    keys_are_listed_in_order_of_creation,
    a_revoked_key_is_gone_for_good,
    the_keys_of_a_function_are_revoked_together,
    a_use_is_noted,
]);

fn key(n: u8) -> Key {
    Key {
        id: KeyId(uuid::Uuid::new_v4()),
        name: format!("key {n}"),
        description: "for the tests".to_owned(),
        owner: Owner::new("ann"),
        scopes: vec![Scope::Invoke, Scope::Read],
        function: None,
        secret_sha256: [n; 32],
        created_at: Timestamp(1_763_776_800_000 + u64::from(n)),
        expires_at: Some(Timestamp(1_900_000_000_000)),
        last_used_at: None,
    }
}

async fn a_key_is_found_by_its_secret_and_survives_a_kill<W: World>() {
    let world = W::open(Config::default()).await;
    let key = key(1);
    world.keys().add(&key).await.unwrap();
    assert_eq!(world.keys().by_secret(&[1; 32]).await.unwrap().as_ref(), Some(&key));
    assert_eq!(world.keys().by_secret(&[2; 32]).await.unwrap(), None);
    let world = world.killed().await;
    assert_eq!(world.keys().by_secret(&[1; 32]).await.unwrap(), Some(key));
}

async fn keys_are_listed_in_order_of_creation<W: World>() {
    let world = W::open(Config::default()).await;
    let keys: Vec<Key> = (1..=5).map(key).collect();
    for key in &keys {
        world.keys().add(key).await.unwrap();
    }
    assert_eq!(world.keys().list().await.unwrap(), keys);
    let world = world.killed().await;
    assert_eq!(world.keys().list().await.unwrap(), keys);
}

async fn a_revoked_key_is_gone_for_good<W: World>() {
    let world = W::open(Config::default()).await;
    let key = key(1);
    world.keys().add(&key).await.unwrap();
    assert!(world.keys().revoke(key.id).await.unwrap());
    assert!(!world.keys().revoke(key.id).await.unwrap());
    assert_eq!(world.keys().by_secret(&[1; 32]).await.unwrap(), None);
    let world = world.killed().await;
    assert_eq!(world.keys().list().await.unwrap(), []);
}

async fn the_keys_of_a_function_are_revoked_together<W: World>() {
    let world = W::open(Config::default()).await;
    let (function, version) = function("ann", "hello");
    world.registry().create(&function, &version).await.unwrap();
    let bound = |n| Key { function: Some(function.id), ..key(n) };
    let (first, other, second) = (bound(1), key(2), bound(3));
    for key in [&first, &other, &second] {
        world.keys().add(key).await.unwrap();
    }
    let world = world.killed().await;
    assert_eq!(world.keys().list().await.unwrap(), [first.clone(), other.clone(), second.clone()]);
    let mut revoked = world.keys().revoke_of(function.id).await.unwrap();
    revoked.sort_unstable();
    let mut expected = vec![first.id, second.id];
    expected.sort_unstable();
    assert_eq!(revoked, expected);
    assert_eq!(world.keys().by_secret(&[1; 32]).await.unwrap(), None);
    assert_eq!(world.keys().by_secret(&[2; 32]).await.unwrap(), Some(other.clone()));
    assert_eq!(world.keys().revoke_of(function.id).await.unwrap(), []);
    let world = world.killed().await;
    assert_eq!(world.keys().list().await.unwrap(), [other]);
}

async fn a_use_is_noted<W: World>() {
    let world = W::open(Config::default()).await;
    let key = key(1);
    world.keys().add(&key).await.unwrap();
    world.keys().used(key.id, Timestamp(1_800_000_000_000));
    world.keys().used(KeyId(uuid::Uuid::new_v4()), Timestamp(1));
    // Written behind, but in order: what is written after it and waited for shows that it is.
    world.keys().revoke(KeyId(uuid::Uuid::new_v4())).await.unwrap();
    assert_eq!(world.keys().list().await.unwrap()[0].last_used_at, Some(Timestamp(1_800_000_000_000)));
    let world = world.killed().await;
    assert_eq!(world.keys().list().await.unwrap()[0].last_used_at, Some(Timestamp(1_800_000_000_000)));
}
