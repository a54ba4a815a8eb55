//! The bus: news to whoever listens, and an honest `None` to whoever missed some.

use std::time::Duration;

use faasd::config::Config;
use faasd::domain::ids::KeyId;
use faasd::ports::bus::News;

use super::embedded::EmbeddedWorld;
use super::samples::{function_id, invocation_id};
use super::world::World;

contract!(worlds: [embedded => EmbeddedWorld], tests: [
    every_listener_hears_everything_in_order,
    a_late_listener_hears_only_what_follows,
    a_slow_listener_is_told_that_it_missed_news,
    silence_pends,
]);

async fn every_listener_hears_everything_in_order<W: World>() {
    let world = W::open(Config::default()).await;
    let mut listeners = [world.bus().subscribe(), world.bus().subscribe()];
    let told = [
        News::Finished(invocation_id()),
        News::FunctionChanged(function_id()),
        News::KeyRevoked(KeyId(uuid::Uuid::new_v4())),
        News::Cancel(invocation_id()),
    ];
    for news in &told {
        world.bus().publish(news.clone());
    }
    for listener in &mut listeners {
        for news in &told {
            assert_eq!(listener.next().await.as_ref(), Some(news));
        }
    }
}

async fn a_late_listener_hears_only_what_follows<W: World>() {
    let world = W::open(Config::default()).await;
    world.bus().publish(News::Cancel(invocation_id()));
    let mut listener = world.bus().subscribe();
    let news = News::Finished(invocation_id());
    world.bus().publish(news.clone());
    assert_eq!(listener.next().await, Some(news));
}

async fn a_slow_listener_is_told_that_it_missed_news<W: World>() {
    let world = W::open(Config::default()).await;
    let mut listener = world.bus().subscribe();
    for _ in 0..100_000 {
        world.bus().publish(News::Cancel(invocation_id()));
    }
    assert_eq!(listener.next().await, None);
    // And it goes on hearing.
    assert!(listener.next().await.is_some());
}

async fn silence_pends<W: World>() {
    let world = W::open(Config::default()).await;
    let mut listener = world.bus().subscribe();
    assert!(tokio::time::timeout(Duration::from_millis(50), listener.next()).await.is_err());
}
