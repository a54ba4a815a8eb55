//! The registry: names, immutable versions, and who came first.

use std::collections::BTreeSet;

use faasd::config::Config;
use faasd::domain::ids::Owner;
use faasd::ports::StoreError;
use faasd::ports::registry::RegistryError;

#[cfg(feature = "aws")]
use super::aws::{AwsWorld, OnFast};
use super::embedded::EmbeddedWorld;
use super::samples::{function, function_id, version};
use super::world::World;

contract!(worlds: [
    embedded => EmbeddedWorld,
    #[cfg(feature = "aws")] aws => AwsWorld,
    #[cfg(feature = "aws")] fast => AwsWorld<OnFast>,
], tests: [
    a_created_function_is_found_whole_and_survives_a_kill,
    a_name_belongs_to_one_function_of_an_owner,
    one_of_many_creations_wins_the_name,
    a_refused_creation_leaves_nothing,
    publishing_makes_the_next_version_current,
    one_of_many_publications_wins_the_number,
    a_deleted_function_frees_its_name_and_keeps_its_versions,
    functions_are_listed_in_order_of_name,
    functions_are_counted_without_those_that_are_gone,
    pages_have_neither_gaps_nor_repeats_while_functions_are_added,
    a_foreign_cursor_is_refused,
]);

async fn a_created_function_is_found_whole_and_survives_a_kill<W: World>() {
    let mut world = W::open(Config::default()).await;
    let (function, version) = function("ann", "hello");
    world.registry().create(&function, &version).await.unwrap();
    for _ in 0..2 {
        let registry = world.registry();
        assert_eq!(registry.function(function.id).await.unwrap().as_ref(), Some(&function));
        let named = registry.function_named(&function.owner, "hello").await.unwrap();
        assert_eq!(named.as_ref(), Some(&function));
        assert_eq!(registry.version(version.key()).await.unwrap().as_deref(), Some(&version));
        world = world.killed().await;
    }
    assert_eq!(world.registry().function(function_id()).await.unwrap(), None);
    assert_eq!(world.registry().function_named(&Owner::new("bob"), "hello").await.unwrap(), None);
}

async fn a_name_belongs_to_one_function_of_an_owner<W: World>() {
    let world = W::open(Config::default()).await;
    let (first, version) = function("ann", "hello");
    world.registry().create(&first, &version).await.unwrap();
    let (second, version) = function("ann", "hello");
    let refused = world.registry().create(&second, &version).await;
    assert!(matches!(refused, Err(RegistryError::NameTaken)), "{refused:?}");
    let (of_bob, version) = function("bob", "hello");
    world.registry().create(&of_bob, &version).await.unwrap();
    let found = world.registry().function_named(&first.owner, "hello").await.unwrap().unwrap();
    assert_eq!(found.id, first.id);
}

async fn one_of_many_creations_wins_the_name<W: World>() {
    let world = W::open(Config::default()).await;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..100 {
        let registry = world.registry();
        tasks.spawn(async move {
            let (function, version) = function("ann", "hello");
            registry.create(&function, &version).await.is_ok()
        });
    }
    let won = tasks.join_all().await.into_iter().filter(|won| *won).count();
    assert_eq!(won, 1);
}

async fn a_refused_creation_leaves_nothing<W: World>() {
    let world = W::open(Config::default()).await;
    let (first, version) = function("ann", "hello");
    world.registry().create(&first, &version).await.unwrap();
    let (second, version) = function("ann", "hello");
    world.registry().create(&second, &version).await.unwrap_err();
    assert_eq!(world.registry().function(second.id).await.unwrap(), None);
    assert_eq!(world.registry().version(version.key()).await.unwrap(), None);
}

async fn publishing_makes_the_next_version_current<W: World>() {
    let mut world = W::open(Config::default()).await;
    let (function, first) = function("ann", "hello");
    world.registry().create(&function, &first).await.unwrap();
    let second = version(&function, 2);
    let published = world.registry().publish(&second).await.unwrap();
    assert_eq!((published.current, published.updated_at), (2, second.created_at));
    for number in [1, 2, 4] {
        let refused = world.registry().publish(&version(&function, number)).await;
        assert!(matches!(refused, Err(RegistryError::Conflict)), "{number}: {refused:?}");
    }
    let (unknown, _) = super::samples::function("ann", "other");
    let refused = world.registry().publish(&version(&unknown, 2)).await;
    assert!(matches!(refused, Err(RegistryError::NotFound)), "{refused:?}");
    for _ in 0..2 {
        let registry = world.registry();
        assert_eq!(registry.function(function.id).await.unwrap(), Some(published.clone()));
        assert_eq!(registry.version(first.key()).await.unwrap().as_deref(), Some(&first));
        let all = registry.versions(function.id, 10).await.unwrap();
        assert_eq!(all.iter().map(|version| version.number).collect::<Vec<_>>(), [2, 1]);
        assert_eq!(registry.versions(function.id, 1).await.unwrap().len(), 1);
        world = world.killed().await;
    }
}

async fn one_of_many_publications_wins_the_number<W: World>() {
    let world = W::open(Config::default()).await;
    let (function, first) = function("ann", "hello");
    world.registry().create(&function, &first).await.unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..100 {
        let (registry, mut version) = (world.registry(), version(&function, 2));
        version.description = format!("by {n}");
        tasks.spawn(async move { registry.publish(&version).await.is_ok().then_some(version) });
    }
    let won: Vec<_> = tasks.join_all().await.into_iter().flatten().collect();
    assert_eq!(won.len(), 1);
    assert_eq!(world.registry().version(won[0].key()).await.unwrap().as_deref(), Some(&won[0]));
}

async fn a_deleted_function_frees_its_name_and_keeps_its_versions<W: World>() {
    let mut world = W::open(Config::default()).await;
    let (gone, first) = function("ann", "hello");
    world.registry().create(&gone, &first).await.unwrap();
    world.registry().delete(gone.id).await.unwrap();
    let (next, version_of_next) = function("ann", "hello");
    world.registry().create(&next, &version_of_next).await.unwrap();
    for _ in 0..2 {
        let registry = world.registry();
        assert_eq!(registry.function(gone.id).await.unwrap(), None);
        assert_eq!(registry.function_named(&gone.owner, "hello").await.unwrap().unwrap().id, next.id);
        assert_eq!(registry.version(first.key()).await.unwrap().as_deref(), Some(&first));
        assert!(matches!(registry.delete(gone.id).await, Err(RegistryError::NotFound)));
        assert!(matches!(registry.publish(&version(&gone, 2)).await, Err(RegistryError::NotFound)));
        assert_eq!(registry.list(None, 10, None).await.unwrap().items.len(), 1);
        world = world.killed().await;
    }
}

async fn functions_are_listed_in_order_of_name<W: World>() {
    let world = W::open(Config::default()).await;
    for (owner, name) in [("bob", "b"), ("ann", "c"), ("ann", "a"), ("bob", "a")] {
        let (function, first) = function(owner, name);
        world.registry().create(&function, &first).await.unwrap();
        world.registry().publish(&version(&function, 2)).await.unwrap();
    }
    let names = async |owner: Option<&Owner>| {
        let page = world.registry().list(owner, 10, None).await.unwrap();
        assert_eq!(page.next_cursor, None);
        for (function, current) in &page.items {
            assert_eq!((current.function_id, current.number), (function.id, function.current));
        }
        page.items.iter().map(|(function, _)| function.name.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(names(None).await, ["a", "a", "b", "c"]);
    assert_eq!(names(Some(&Owner::new("ann"))).await, ["a", "c"]);
    assert_eq!(names(Some(&Owner::new("eve"))).await, Vec::<String>::new());
}

async fn functions_are_counted_without_those_that_are_gone<W: World>() {
    let mut world = W::open(Config::default()).await;
    let (gone, first) = function("ann", "gone");
    world.registry().create(&gone, &first).await.unwrap();
    for (owner, name) in [("bob", "b"), ("ann", "b"), ("ann", "a")] {
        let (function, first) = function(owner, name);
        world.registry().create(&function, &first).await.unwrap();
        world.registry().publish(&version(&function, 2)).await.unwrap();
    }
    world.registry().delete(gone.id).await.unwrap();
    for _ in 0..2 {
        for (owner, count) in [(None, 3), (Some(Owner::new("ann")), 2), (Some(Owner::new("eve")), 0)] {
            assert_eq!(world.registry().count(owner.as_ref()).await.unwrap(), count, "{owner:?}");
        }
        world = world.killed().await;
    }
}

async fn pages_have_neither_gaps_nor_repeats_while_functions_are_added<W: World>() {
    let world = W::open(Config::default()).await;
    let add = async |name: String| {
        let (function, version) = function("ann", &name);
        world.registry().create(&function, &version).await.unwrap();
    };
    for n in 0..25 {
        add(format!("f{n:02}")).await;
    }
    let mut seen = Vec::new();
    let mut cursor: Option<String> = None;
    for n in 0.. {
        let page = world.registry().list(None, 4, cursor.as_deref()).await.unwrap();
        assert!(page.items.len() <= 4);
        seen.extend(page.items.iter().map(|(function, _)| function.name.to_string()));
        add(format!("e{n:02}")).await;
        add(format!("f{n:02}x")).await;
        cursor = page.next_cursor;
        if cursor.is_none() || n > 100 {
            break;
        }
    }
    let names: BTreeSet<_> = seen.iter().cloned().collect();
    assert_eq!(names.len(), seen.len(), "repeated");
    for n in 0..25 {
        assert!(names.contains(&format!("f{n:02}")), "f{n:02} is missing");
    }
}

async fn a_foreign_cursor_is_refused<W: World>() {
    let world = W::open(Config::default()).await;
    for garbage in ["", "nonsense", "0", "' or 1=1"] {
        let refused = world.registry().list(None, 4, Some(garbage)).await;
        assert!(matches!(refused, Err(StoreError::InvalidCursor)), "{garbage}");
    }
}
