//! The limiter over shared buckets: over all controllers together, without waiting where it can, and without them where it must.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use async_trait::async_trait;
use tokio::task::JoinSet;

use crate::domain::rate::Drawn;
use crate::domain::time::Timestamp;
use crate::ports::Unavailable;

use super::*;

const ANN: Identity = [7; 32];

/// A clock that stands still, and shared buckets that can be made slow or unreachable.
struct World {
    now_us: AtomicU64,
    buckets: Mutex<HashMap<Identity, TokenBucket>>,
    draws: AtomicUsize,
    is_down: AtomicBool,
    controllers: u32,
    slow: Duration,
}

impl World {
    fn new(slow: Duration) -> Arc<Self> {
        Arc::new(Self {
            now_us: AtomicU64::new(1_000_000),
            buckets: Mutex::default(),
            draws: AtomicUsize::new(0),
            is_down: AtomicBool::new(false),
            controllers: 4,
            slow,
        })
    }

    fn pass(&self, time: Duration) {
        self.now_us.fetch_add(time.as_micros() as u64, Ordering::SeqCst);
    }

    fn draws(&self) -> usize {
        self.draws.load(Ordering::SeqCst)
    }
}

impl Clock for World {
    fn now(&self) -> Timestamp {
        Timestamp(0)
    }

    fn monotonic(&self) -> Duration {
        Duration::from_micros(self.now_us.load(Ordering::SeqCst))
    }
}

#[async_trait]
impl Buckets for World {
    async fn draw(&self, identity: &Identity, rate: Rate, want: u32) -> Result<Drawn, Unavailable> {
        self.draws.fetch_add(1, Ordering::SeqCst);
        if !self.slow.is_zero() {
            tokio::time::sleep(self.slow).await;
        }
        if self.is_down.load(Ordering::SeqCst) {
            return Err(Unavailable("down".to_owned()));
        }
        let (now, mut buckets) = (self.monotonic(), self.buckets.lock().unwrap());
        Ok(buckets.entry(*identity).or_insert_with(|| TokenBucket::full(rate, now)).draw(rate, now, want))
    }

    async fn sharers(&self) -> Result<u32, Unavailable> {
        if self.is_down.load(Ordering::SeqCst) { Err(Unavailable("down".to_owned())) } else { Ok(self.controllers) }
    }
}

fn limiter(world: &Arc<World>, rate: u32, burst: u32) -> Arc<RateLimiter> {
    let config = RateLimit { enabled: true, rate, burst };
    let clock: Arc<dyn Clock> = world.clone();
    Arc::new(RateLimiter::new(&config, Some(world.clone()), &clock).unwrap())
}

/// How many of `calls` one after the other are let through.
async fn allowed(world: &World, limiter: &RateLimiter, calls: usize) -> usize {
    let mut allowed = 0;
    for _ in 0..calls {
        allowed += usize::from(limiter.take(&ANN, world.monotonic()).await.allowed);
        // Draws of the background.
        tokio::task::yield_now().await;
    }
    allowed
}

#[tokio::test]
async fn two_controllers_allow_together_what_one_would() {
    let world = World::new(Duration::ZERO);
    let limiters = [limiter(&world, 50, 400), limiter(&world, 50, 400)];
    let both = [allowed(&world, &limiters[0], 300).await, allowed(&world, &limiters[1], 300).await];
    // A few may lie in the other's hand.
    assert!((395..=400).contains(&both.iter().sum::<usize>()), "{both:?}");
    assert!(world.draws() < 400 / 5 * 2, "{} draws", world.draws());
    let before = world.draws();
    assert_eq!(allowed(&world, &limiters[1], 100).await, 0);
    assert!(world.draws() - before <= 1, "those refused ask nobody: {}", world.draws() - before);
    world.pass(Duration::from_secs(1));
    let next = allowed(&world, &limiters[0], 100).await;
    assert!((40..=50).contains(&next), "{next}");
}

#[tokio::test(start_paused = true)]
async fn who_comes_together_waits_for_one_draw_and_who_comes_later_for_none() {
    let world = World::new(Duration::from_millis(10));
    let limiter = limiter(&world, 1000, 8000);
    let mut calls = JoinSet::new();
    for _ in 0..40 {
        let (world, limiter) = (world.clone(), limiter.clone());
        calls.spawn(async move { limiter.take(&ANN, world.monotonic()).await.allowed });
    }
    assert_eq!(calls.join_all().await, [true; 40]);
    assert_eq!(world.draws(), 1);
    let began = tokio::time::Instant::now();
    // 60 of a hundred are left; the second draw begins when half are, and takes its time.
    for _ in 0..55 {
        assert!(limiter.take(&ANN, world.monotonic()).await.allowed);
        tokio::task::yield_now().await;
    }
    assert_eq!((world.draws(), began.elapsed()), (2, Duration::ZERO), "nobody waited");
}

#[tokio::test]
async fn without_the_buckets_each_allows_its_share() {
    let world = World::new(Duration::ZERO);
    let limiter = limiter(&world, 40, 400);
    // While they can be reached, it is heard that four controllers share.
    assert!(limiter.take(&[1; 32], world.monotonic()).await.allowed);
    tokio::task::yield_now().await;
    world.is_down.store(true, Ordering::SeqCst);
    let before = world.draws();
    assert_eq!(allowed(&world, &limiter, 300).await, 100);
    assert_eq!(world.draws() - before, 1, "one draw found out, and nobody else waits for that");
    world.pass(Duration::from_secs(2));
    assert_eq!(allowed(&world, &limiter, 300).await, 20);
    assert_eq!(world.draws() - before, 2, "one looks whether they are back");
    world.is_down.store(false, Ordering::SeqCst);
    world.pass(Duration::from_secs(2));
    allowed(&world, &limiter, 2).await;
    assert_eq!(allowed(&world, &limiter, 300).await, 300, "they are");
}

#[tokio::test]
async fn low_rates_are_exact() {
    let world = World::new(Duration::ZERO);
    let limiter = limiter(&world, 1, 2);
    for expected in [2, 1, 1] {
        assert_eq!(allowed(&world, &limiter, 5).await, expected);
        world.pass(Duration::from_secs(1));
    }
}

#[tokio::test]
async fn callers_are_told_where_they_stand() {
    let world = World::new(Duration::ZERO);
    let limiter = limiter(&world, 1, 2);
    let grants = [limiter.take(&ANN, world.monotonic()).await, limiter.take(&ANN, world.monotonic()).await];
    assert_eq!(grants.map(|grant| grant.remaining), [1, 0]);
    let refused = limiter.take(&ANN, world.monotonic()).await;
    assert_eq!(
        (refused.allowed, refused.next_in, refused.full_in),
        (false, Duration::from_secs(1), Duration::from_secs(2))
    );
    let mut headers = HeaderMap::new();
    limiter.write_headers(&mut headers, refused);
    assert_eq!((&headers["x-ratelimit-limit"], &headers["x-ratelimit-remaining"]), (&2.into(), &0.into()));
}
