//! The bus: news to whoever listens, on every node, and an honest `None` to whoever missed some.

use std::time::Duration;

use faasd::domain::ids::KeyId;
use faasd::ports::bus::News;

use super::samples::{function_id, invocation_id};
use super::shared::{LocalWorld, RedisWorld, SharedWorld};

contract!(worlds: [local => LocalWorld, redis => RedisWorld], tests: [
    every_listener_hears_everything_in_order,
    a_late_listener_hears_only_what_follows,
    ones_own_news_come_once,
    many_at_once_come_in_order,
    a_slow_listener_is_told_that_it_missed_news,
    silence_pends,
]);

pub async fn every_listener_hears_everything_in_order<W: SharedWorld>() {
    let world = W::open().await;
    let (here, there) = (world.node().await, world.node().await);
    let mut listeners = [here.bus.subscribe(), here.bus.subscribe(), there.bus.subscribe()];
    let told = [
        News::Finished(invocation_id()),
        News::FunctionChanged(function_id()),
        News::KeyRevoked(KeyId(uuid::Uuid::new_v4())),
        News::Cancel(invocation_id()),
    ];
    for news in &told {
        here.bus.publish(news.clone());
    }
    for listener in &mut listeners {
        for news in &told {
            assert_eq!(listener.next().await.as_ref(), Some(news));
        }
    }
}

async fn a_late_listener_hears_only_what_follows<W: SharedWorld>() {
    let world = W::open().await;
    let node = world.node().await;
    node.bus.publish(News::Cancel(invocation_id()));
    let mut listener = node.bus.subscribe();
    let news = News::Finished(invocation_id());
    node.bus.publish(news.clone());
    assert_eq!(listener.next().await, Some(news));
}

async fn ones_own_news_come_once<W: SharedWorld>() {
    let world = W::open().await;
    let (here, there) = (world.node().await, world.node().await);
    let (mut near, mut far) = (here.bus.subscribe(), there.bus.subscribe());
    let (question, answer) = (News::Cancel(invocation_id()), News::Finished(invocation_id()));
    here.bus.publish(question.clone());
    assert_eq!(far.next().await, Some(question.clone()));
    there.bus.publish(answer.clone());
    assert_eq!([near.next().await, near.next().await], [Some(question), Some(answer)]);
}

async fn many_at_once_come_in_order<W: SharedWorld>() {
    let world = W::open().await;
    let (here, there) = (world.node().await, world.node().await);
    let mut far = there.bus.subscribe();
    let told: Vec<News> = (0..1500).map(|_| News::Finished(invocation_id())).collect();
    for news in &told {
        here.bus.publish(news.clone());
    }
    for news in &told {
        assert_eq!(far.next().await.as_ref(), Some(news));
    }
}

async fn a_slow_listener_is_told_that_it_missed_news<W: SharedWorld>() {
    let world = W::open().await;
    let node = world.node().await;
    let mut listener = node.bus.subscribe();
    for _ in 0..100_000 {
        node.bus.publish(News::Cancel(invocation_id()));
    }
    assert_eq!(listener.next().await, None);
    // And it goes on hearing.
    assert!(listener.next().await.is_some());
}

async fn silence_pends<W: SharedWorld>() {
    let world = W::open().await;
    let node = world.node().await;
    let mut listener = node.bus.subscribe();
    assert!(tokio::time::timeout(Duration::from_millis(50), listener.next()).await.is_err());
}
