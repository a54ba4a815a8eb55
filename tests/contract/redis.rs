//! Redis as it is run: cluster, sentinel, TLS, users; and as it fails: dead, frozen, dropped connections, lost scripts and data.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use faasd::adapters::redis::{Hears, OpenError, Redis};
use faasd::config;
use faasd::domain::ids::VersionKey;
use faasd::domain::rate::Rate;
use faasd::ports::buckets::SHARES_FOR;
use faasd::ports::bus::{News, Subscription};

use crate::support::certificates::Authority;
use crate::support::redis::{Builder, RedisServer, Sentinel, free_port};

use super::roster::view;
use super::samples::{function_id, invocation_id, worker_id};
use super::shared::{ClusterWorld, Node, RedisWorld, SharedWorld, patient};
use super::{buckets, bus, claims, locks, roster};

/// What a node has to do and to give in keys, channels and commands of an ACL: as docs/redis.md says.
const USER: &str = "~{faasd:* &{faasd:* -@all +eval +evalsha +publish +subscribe +unsubscribe +time +hello +auth +ping +info \
    +select +hset +hget +hmget +hdel +hlen +hexists +hgetall +lpush +lpop +ltrim +lrem +get +set +del +pexpire +cluster|slots +cluster|info \
    +client|setname +client|id";
const RATE: Rate = Rate { per_second: 10, burst: 100 };
/// Commands of these tests are given up after this …
const TIMEOUT: Duration = Duration::from_millis(400);
/// … so that one lasts no longer than this, on a machine that other tests keep busy: a script that is not known is sent in a second command.
const COMMAND_LIMIT: Duration = Duration::from_secs(5);
const HEAR_LIMIT: Duration = Duration::from_secs(20);

fn hasty(url: String) -> config::Redis {
    config::Redis { url, command_timeout_ms: TIMEOUT.as_millis() as u64, ..config::Redis::default() }
}

/// What [`one_of_each`] sends.
const COMMANDS: usize = 10;

/// Commands of each port. How many failed.
async fn one_of_each(node: &Node) -> usize {
    let version = VersionKey { function: function_id(), number: 1 };
    let worker = worker_id();
    let results = [
        node.buckets.sharers().await.map(drop),
        node.claims.offer(version, worker, 2).await,
        node.claims.take(version).await.map(drop),
        node.claims.withdraw(version, worker, 1).await.map(drop),
        node.roster.beat(&view(worker)).await,
        node.roster.workers().await.map(drop),
        node.roster.leave(worker).await,
        node.buckets.draw(&[3; 32], RATE, 1).await.map(drop),
        node.locks.acquire("sweep", "ann", Duration::from_secs(1)).await.map(drop),
        node.locks.release("sweep", "ann").await,
    ];
    results.iter().filter(|result| result.is_err()).count()
}

/// Listens until there is `None`: news may have been missed.
async fn hears_that_news_were_missed(listener: &mut Box<dyn Subscription>) {
    let heard = async { while listener.next().await.is_some() {} };
    assert!(tokio::time::timeout(HEAR_LIMIT, heard).await.is_ok(), "nothing said that news were missed");
}

/// News of `from` reach `to` again.
async fn are_in_touch(from: &Node, to: &Node) {
    let mut listener = to.bus.subscribe();
    let news = News::Finished(invocation_id());
    let heard = async {
        loop {
            from.bus.publish(news.clone());
            let next = tokio::time::timeout(Duration::from_millis(100), async {
                while listener.next().await.as_ref() != Some(&news) {}
            });
            if next.await.is_ok() {
                return;
            }
        }
    };
    assert!(tokio::time::timeout(HEAR_LIMIT, heard).await.is_ok(), "news do not arrive");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_serves_every_port() {
    bus::every_listener_hears_everything_in_order::<ClusterWorld>().await;
    claims::the_newest_is_taken_first_and_once::<ClusterWorld>().await;
    claims::a_worker_withdraws_its_own::<ClusterWorld>().await;
    roster::every_node_sees_who_was_heard::<ClusterWorld>().await;
    buckets::nodes_draw_from_one_bucket::<ClusterWorld>().await;
    locks::one_holds_it_until_it_is_given_back::<ClusterWorld>().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_spreads_what_has_many_keys() {
    let world = ClusterWorld::open().await;
    let node = world.node().await;
    for _ in 0..64 {
        node.claims.offer(VersionKey { function: function_id(), number: 1 }, worker_id(), 1).await.unwrap();
    }
    for server in &world.0.nodes {
        let keys: usize = server.ask(&["DBSIZE"]).trim_start_matches(':').parse().unwrap();
        assert!(keys > 20, "{keys} of 128 keys");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sentinels_failover_is_followed() {
    let mut group = Sentinel::start();
    let config = hasty(group.url());
    let (here, there) = (Node::connected(&config).await, Node::connected(&config).await);
    assert_eq!(one_of_each(&here).await, 0);
    let before = here.locks.acquire("lead", "ann", Duration::from_millis(1)).await.unwrap().unwrap();
    let mut listener = there.bus.subscribe();
    group.fail_over();
    hears_that_news_were_missed(&mut listener).await;
    here.wait_up().await;
    there.wait_up().await;
    are_in_touch(&here, &there).await;
    assert_eq!(one_of_each(&there).await, 0);
    let after = there.locks.acquire("lead", "bob", Duration::from_secs(1)).await.unwrap().unwrap();
    assert!(after > before, "{after:?} after {before:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_trusts_the_authority_it_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let server = Builder::default().tls(&authority.issue(dir.path())).start();
    let trusting = config::Redis { ca_file: dir.path().join("ca.pem").display().to_string(), ..patient(server.url()) };
    let (here, there) = (Node::connected(&trusting).await, Node::connected(&trusting).await);
    assert_eq!(one_of_each(&here).await, 0);
    are_in_touch(&here, &there).await;

    let other = dir.path().join("other.pem");
    std::fs::write(&other, Authority::new().pem).unwrap();
    let mistaken = Node::open(&config::Redis { ca_file: other.display().to_string(), ..hasty(server.url()) });
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!mistaken.reach().is_up);
    assert_eq!(one_of_each(&mistaken).await, COMMANDS);

    let absent = config::Redis { ca_file: "/nowhere/ca.pem".to_owned(), ..patient(server.url()) };
    let refused = Redis::open(&absent, Hears::All, &prometheus::Registry::new()).err().unwrap();
    assert!(matches!(refused, OpenError::Certificates { .. }), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_needs_no_more_than_the_documentation_says() {
    let page = include_str!("../../docs/redis.md");
    assert!(page.contains(USER), "docs/redis.md does not have the user of this test");
    let user = format!("faasd on >secret {USER}");
    let server = Builder::default().with(&["--user", &user, "--user", "default off"]).start();
    let config = config::Redis { username: "faasd".to_owned(), password: "secret".into(), ..patient(server.url()) };
    let (here, there) = (Node::connected(&config).await, Node::connected(&config).await);
    assert_eq!(one_of_each(&here).await, 0);
    are_in_touch(&here, &there).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_that_was_wrong_is_tried_again() {
    let server = Builder::default().with(&["--user", "faasd on >old +@all ~* &*"]).start();
    let config = config::Redis { username: "faasd".to_owned(), password: "new".into(), ..hasty(server.url()) };
    let node = Node::open(&config);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(one_of_each(&node).await, COMMANDS);
    assert_eq!(server.ask(&["ACL", "SETUSER", "faasd", ">new"]), "+OK");
    node.wait_up().await;
    assert_eq!(one_of_each(&node).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_starts_without_redis() {
    let port = free_port();
    let began = Instant::now();
    let node = Node::open(&hasty(format!("redis://127.0.0.1:{port}")));
    assert!(began.elapsed() < COMMAND_LIMIT);
    assert_eq!(one_of_each(&node).await, COMMANDS);
    let reach = node.reach();
    assert!(!reach.is_up && reach.latency.is_none(), "{reach:?}");
    // Its own news reach itself all the same.
    let mut listener = node.bus.subscribe();
    let news = News::Finished(invocation_id());
    node.bus.publish(news.clone());
    assert_eq!(listener.next().await, Some(news));
}

/// Calls everything on `node` until told to stop: how often, and the longest that one round took.
fn load(node: Arc<Node>, stop: Arc<AtomicBool>) -> tokio::task::JoinHandle<(usize, usize, Duration)> {
    tokio::spawn(async move {
        let (mut rounds, mut failed, mut longest) = (0, 0, Duration::ZERO);
        while !stop.load(Ordering::Relaxed) {
            let began = Instant::now();
            failed += usize::from(one_of_each(&node).await > 0);
            node.bus.publish(News::Finished(invocation_id()));
            longest = longest.max(began.elapsed());
            rounds += 1;
            tokio::task::yield_now().await;
        }
        (rounds, failed, longest)
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_dies_and_comes_back_twice_under_load() {
    let mut server = RedisServer::start();
    let config = hasty(server.url());
    let (here, there) = (Arc::new(Node::connected(&config).await), Arc::new(Node::connected(&config).await));
    let stop = Arc::new(AtomicBool::new(false));
    let loads: Vec<_> = (0..8).map(|n| load([&here, &there][n % 2].clone(), stop.clone())).collect();
    for _ in 0..2 {
        are_in_touch(&here, &there).await;
        let mut listeners = [here.bus.subscribe(), there.bus.subscribe()];
        server.kill9();
        here.wait_down().await;
        there.wait_down().await;
        let began = Instant::now();
        assert_eq!(one_of_each(&here).await, COMMANDS);
        assert!(began.elapsed() < COMMAND_LIMIT, "its commands failed in {:?}", began.elapsed());
        server.restart();
        for listener in &mut listeners {
            hears_that_news_were_missed(listener).await;
        }
        here.wait_up().await;
        there.wait_up().await;
    }
    are_in_touch(&here, &there).await;
    are_in_touch(&there, &here).await;
    stop.store(true, Ordering::Relaxed);
    for load in loads {
        let (rounds, failed, longest) = load.await.unwrap();
        assert!(failed > 0 && rounds > failed, "{rounds} rounds, {failed} failed");
        assert!(longest < COMMAND_LIMIT * 4, "{longest:?}");
    }
    assert_eq!(one_of_each(&here).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_says_nothing_is_given_up_in_time() {
    let server = RedisServer::start();
    let config = hasty(server.url());
    let (here, there) = (Node::connected(&config).await, Node::connected(&config).await);
    assert_eq!(one_of_each(&here).await, 0);
    let mut listener = there.bus.subscribe();
    server.freeze();
    here.bus.publish(News::Finished(invocation_id()));
    let began = Instant::now();
    assert!(here.roster.workers().await.is_err());
    assert!(began.elapsed() < COMMAND_LIMIT, "{:?}", began.elapsed());
    here.wait_down().await;
    there.wait_down().await;
    server.thaw();
    here.wait_up().await;
    there.wait_up().await;
    hears_that_news_were_missed(&mut listener).await;
    are_in_touch(&here, &there).await;
    assert_eq!(one_of_each(&here).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listener_that_redis_drops_listens_again_and_says_so() {
    let server = RedisServer::start();
    let config = patient(server.url());
    let (here, there) = (Node::connected(&config).await, Node::connected(&config).await);
    let mut listener = there.bus.subscribe();
    assert_eq!(server.ask(&["CLIENT", "KILL", "TYPE", "pubsub"]), ":2");
    hears_that_news_were_missed(&mut listener).await;
    are_in_touch(&here, &there).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn others_are_told_that_news_of_ours_were_lost() {
    let user = "faasd on >secret +@all ~* &*";
    let server = Builder::default().with(&["--user", user]).start();
    let mute = config::Redis { username: "faasd".to_owned(), password: "secret".into(), ..patient(server.url()) };
    let (here, there) = (Node::connected(&mute).await, Node::connected(&patient(server.url())).await);
    let mut listener = there.bus.subscribe();
    assert_eq!(server.ask(&["ACL", "SETUSER", "faasd", "-publish"]), "+OK");
    here.bus.publish(News::Finished(invocation_id()));
    here.wait_down().await;
    assert!(there.reach().is_up);
    let quiet = tokio::time::timeout(Duration::from_millis(200), listener.next()).await;
    assert!(quiet.is_err(), "{quiet:?}");
    assert_eq!(server.ask(&["ACL", "SETUSER", "faasd", "+publish"]), "+OK");
    hears_that_news_were_missed(&mut listener).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scripts_that_redis_forgot_are_sent_again() {
    let server = RedisServer::start();
    let node = Node::connected(&patient(server.url())).await;
    assert_eq!(one_of_each(&node).await, 0);
    assert_eq!(server.ask(&["SCRIPT", "FLUSH"]), "+OK");
    assert_eq!(one_of_each(&node).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fence_grows_although_redis_lost_its_data() {
    let server = RedisServer::start();
    let node = Node::connected(&patient(server.url())).await;
    let before = node.locks.acquire("lead", "ann", Duration::from_secs(60)).await.unwrap().unwrap();
    assert_eq!(server.ask(&["FLUSHALL"]), "+OK");
    let after = node.locks.acquire("lead", "bob", Duration::from_secs(60)).await.unwrap().unwrap();
    assert!(after > before, "{after:?} after {before:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_left_behind_expires() {
    let server = RedisServer::start();
    let node = Node::connected(&config::Redis { key_prefix: "mine".to_owned(), ..patient(server.url()) }).await;
    let version = VersionKey { function: function_id(), number: 1 };
    node.claims.offer(version, worker_id(), 2).await.unwrap();
    node.roster.beat(&view(worker_id())).await.unwrap();
    node.buckets.draw(&[3; 32], RATE, 50).await.unwrap();
    node.buckets.sharers().await.unwrap();
    node.locks.acquire("lead", "ann", Duration::from_secs(60)).await.unwrap();
    let keys = server.ask(&["KEYS", "*"]);
    assert_eq!(keys.lines().count(), 7, "{keys}");
    for key in keys.lines() {
        assert!(key.starts_with("{mine:"), "{key}");
        let left: i64 = server.ask(&["PTTL", key]).trim_start_matches(':').parse().unwrap();
        assert!(left > 0 || key.ends_with(":fence"), "{key} stays for ever");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn those_who_share_buckets_are_counted_while_they_live() {
    let world = RedisWorld::open().await;
    let (here, there) = (world.node().await, world.node().await);
    assert_eq!(here.buckets.sharers().await.unwrap(), 1);
    assert_eq!(there.buckets.sharers().await.unwrap(), 2);
    world.pass(SHARES_FOR * 2 / 3).await;
    assert_eq!(here.buckets.sharers().await.unwrap(), 2);
    world.pass(SHARES_FOR * 2 / 3).await;
    assert_eq!(here.buckets.sharers().await.unwrap(), 1);
}

/// Most news say that a call ended, and a fleet has many nodes where nobody waits for one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_waits_for_no_call_hears_all_news_but_ends() {
    let server = RedisServer::start();
    let config = patient(server.url());
    let controller = Node::connected(&config).await;
    let worker = Redis::open(&config, Hears::AllButEnds, &prometheus::Registry::new()).unwrap();
    let mut at_worker = worker.bus.subscribe();
    let since = Instant::now();
    while !worker.bus.reach().is_some_and(|reach| reach.is_up) {
        assert!(since.elapsed() < HEAR_LIMIT);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let mut at_controller = controller.bus.subscribe();
    let (ended, stopped) = (News::Finished(invocation_id()), News::Cancel(invocation_id()));
    worker.bus.publish(ended.clone());
    assert_eq!(hears(&mut at_controller).await, ended);
    controller.bus.publish(News::Finished(invocation_id()));
    controller.bus.publish(stopped.clone());
    // What it published itself first; of the controller's, the second alone.
    assert_eq!(hears(&mut at_worker).await, ended);
    assert_eq!(hears(&mut at_worker).await, stopped);
}

/// The next that is news.
async fn hears(listener: &mut Box<dyn Subscription>) -> News {
    let next = async {
        loop {
            if let Some(news) = listener.next().await {
                return news;
            }
        }
    };
    tokio::time::timeout(HEAR_LIMIT, next).await.expect("news arrive")
}
