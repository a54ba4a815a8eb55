//! What the policies have learned: the latest of each, of what still is.

use faasd::config::Config;
use faasd::domain::ids::FunctionId;
use faasd::domain::policy::learned::Lesson;

#[cfg(feature = "aws")]
use super::aws::{AwsWorld, OnFast};
use super::embedded::EmbeddedWorld;
use super::samples::{function, version};
use super::world::World;

contract!(worlds: [
    embedded => EmbeddedWorld,
    #[cfg(feature = "aws")] aws => AwsWorld,
    #[cfg(feature = "aws")] fast => AwsWorld<OnFast>,
], tests: [
    the_latest_of_each_survives_a_kill,
    of_what_is_over_nothing_is_said,
]);

// Not on the functional emulator: 25 000 items are minutes of it.
contract!(worlds: [
    embedded_large => EmbeddedWorld,
    #[cfg(feature = "aws")] fast_large => AwsWorld<OnFast>,
], tests: [the_oldest_give_way]);

fn lesson(function: FunctionId, version: Option<u32>, text: impl Into<String>) -> Lesson {
    Lesson { function, version, text: text.into() }
}

async fn deployed<W: World>(world: &W, name: &str) -> FunctionId {
    let (function, first) = function("ann", name);
    world.registry().create(&function, &first).await.unwrap();
    function.id
}

async fn the_latest_of_each_survives_a_kill<W: World>() {
    let world = W::open(Config::default()).await;
    let (f, g) = (deployed(&world, "f").await, deployed(&world, "g").await);
    assert_eq!(world.lessons().load().await.unwrap(), []);
    world.lessons().save(vec![lesson(f, None, "old"), lesson(f, Some(1), "calls")]).await.unwrap();
    world.pass(std::time::Duration::from_secs(1)).await;
    world.lessons().save(vec![lesson(g, None, "é\u{0}"), lesson(f, None, "new")]).await.unwrap();
    let world = world.killed().await;
    let mut loaded = world.lessons().load().await.unwrap();
    assert_eq!(loaded.remove(0), lesson(f, Some(1), "calls"), "the oldest first");
    loaded.sort_by_key(|lesson| lesson.text.clone());
    assert_eq!(loaded, [lesson(f, None, "new"), lesson(g, None, "é\u{0}")]);
}

async fn of_what_is_over_nothing_is_said<W: World>() {
    let world = W::open(Config::default()).await;
    let (kept, first) = function("ann", "kept");
    world.registry().create(&kept, &first).await.unwrap();
    let gone = deployed(&world, "gone").await;
    let all = [
        lesson(kept.id, None, "1"),
        lesson(kept.id, Some(1), "2"),
        lesson(gone, None, "3"),
        lesson(gone, Some(1), "4"),
    ];
    world.lessons().save(all.to_vec()).await.unwrap();
    world.registry().delete(gone).await.unwrap();
    world.registry().publish(&version(&kept, 2)).await.unwrap();
    assert_eq!(world.lessons().load().await.unwrap(), [lesson(kept.id, None, "1")]);
    world.lessons().save(vec![lesson(kept.id, Some(2), "5")]).await.unwrap();
    let world = world.killed().await;
    let mut loaded = world.lessons().load().await.unwrap();
    loaded.sort_by_key(|lesson| lesson.version);
    assert_eq!(loaded, [lesson(kept.id, None, "1"), lesson(kept.id, Some(2), "5")]);
}

async fn the_oldest_give_way<W: World>() {
    let world = W::open(Config::default()).await;
    let f = deployed(&world, "f").await;
    world.lessons().save(vec![lesson(f, None, "first")]).await.unwrap();
    world.pass(std::time::Duration::from_secs(1)).await;
    // Of functions that nobody sees: they take the place all the same.
    let strangers = (0..25_000_u128).map(|n| lesson(FunctionId(uuid::Uuid::from_u128(n)), None, "-")).collect();
    world.lessons().save(strangers).await.unwrap();
    assert_eq!(world.lessons().load().await.unwrap(), []);
}
