//! Buckets: together all nodes draw what one could, and no more.

use std::time::{Duration, Instant};

use faasd::domain::rate::Rate;

use super::shared::{LocalWorld, RedisWorld, SharedWorld};

contract!(worlds: [local => LocalWorld, redis => RedisWorld], tests: [
    nodes_draw_from_one_bucket,
    a_draw_says_when_there_is_more,
    what_was_drawn_comes_back_in_time,
    together_never_more_than_burst_and_rate_allow,
    a_changed_rate_holds_at_once,
]);

/// So slow that a test ends before a token is back.
const SLOW: Rate = Rate { per_second: 1, burst: 100 };
const ANN: [u8; 32] = [7; 32];
const BOB: [u8; 32] = [8; 32];

pub async fn nodes_draw_from_one_bucket<W: SharedWorld>() {
    let world = W::open().await;
    let (here, there) = (world.node().await, world.node().await);
    assert_eq!(here.buckets.draw(&ANN, SLOW, 60).await.unwrap().tokens, 60);
    assert_eq!(there.buckets.draw(&BOB, SLOW, 1).await.unwrap().tokens, 1);
    let rest = there.buckets.draw(&ANN, SLOW, 60).await.unwrap().tokens;
    assert!((40..60).contains(&rest), "as many as there are: {rest}");
    assert!(here.buckets.draw(&ANN, SLOW, 60).await.unwrap().tokens < 20);
}

async fn a_draw_says_when_there_is_more<W: SharedWorld>() {
    let world = W::open().await;
    let node = world.node().await;
    let began = Instant::now();
    let all = node.buckets.draw(&ANN, SLOW, 100).await.unwrap();
    assert_eq!((all.tokens, all.remaining), (100, 0));
    let took = began.elapsed();
    let near = |got: Duration, want: u64| got <= Duration::from_secs(want) && got + took >= Duration::from_secs(want);
    assert!(near(all.next_in, 1) && near(all.full_in, 100), "{all:?} after {took:?}");
    let one = node.buckets.draw(&BOB, SLOW, 1).await.unwrap();
    assert_eq!((one.tokens, one.remaining, one.next_in), (1, 99, Duration::ZERO));
    let look = node.buckets.draw(&[9; 32], SLOW, 0).await.unwrap();
    assert_eq!((look.tokens, look.remaining, look.full_in), (0, 100, Duration::ZERO));
}

async fn what_was_drawn_comes_back_in_time<W: SharedWorld>() {
    let world = W::open().await;
    let node = world.node().await;
    assert_eq!(node.buckets.draw(&ANN, SLOW, 100).await.unwrap().tokens, 100);
    world.pass(Duration::from_secs(10)).await;
    let tokens = node.buckets.draw(&ANN, SLOW, 100).await.unwrap().tokens;
    assert!((10..20).contains(&tokens), "{tokens}");
    world.pass(Duration::from_secs(1_000)).await;
    assert_eq!(node.buckets.draw(&ANN, SLOW, 1_000).await.unwrap().tokens, 100, "never more than the burst");
}

pub async fn together_never_more_than_burst_and_rate_allow<W: SharedWorld>() {
    let world = W::open().await;
    let nodes = [world.node().await, world.node().await];
    let rate = Rate { per_second: 500, burst: 50 };
    let began = Instant::now();
    let mut drawers = tokio::task::JoinSet::new();
    for (n, node) in nodes.iter().cycle().take(8).enumerate() {
        let buckets = node.buckets.clone();
        drawers.spawn(async move {
            let mut tokens = 0;
            for _ in 0..50 {
                tokens += buckets.draw(&ANN, rate, n as u32 + 1).await.unwrap().tokens;
            }
            tokens
        });
    }
    let tokens: u32 = drawers.join_all().await.into_iter().sum();
    let allowed = 50.0 + 500.0 * began.elapsed().as_secs_f64();
    assert!((50.0..=allowed).contains(&f64::from(tokens)), "{tokens} of {allowed}");
}

async fn a_changed_rate_holds_at_once<W: SharedWorld>() {
    let world = W::open().await;
    let node = world.node().await;
    let big = Rate { per_second: u32::MAX, burst: u32::MAX };
    let drawn = node.buckets.draw(&ANN, big, 1_000_000).await.unwrap();
    assert_eq!((drawn.tokens, drawn.remaining), (1_000_000, u32::MAX - 1_000_000));
    let drawn = node.buckets.draw(&ANN, SLOW, 1_000_000).await.unwrap();
    assert_eq!((drawn.tokens, drawn.remaining), (100, 0));
}
