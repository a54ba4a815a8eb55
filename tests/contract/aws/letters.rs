//! Dead letters in DynamoDB, as SQS's queue writes them.

use super::*;

fn letter(owner: &str, died_at: Timestamp) -> DeadLetter {
    DeadLetter { job: samples::job(owner), attempts: 2, reason: "it failed twice".to_owned(), died_at }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn letters_are_kept_whole_and_listed_newest_first() {
    let world = world().await;
    let now = world.now().as_millis();
    let mut letters: Vec<DeadLetter> =
        (0..6).map(|n| letter(["ann", "bob"][n as usize % 2], Timestamp(now - 100 + n))).collect();
    // Larger than an item may be: its payload lies among the artifacts, and is in the message again when it is read.
    letters[1].job.payload = Payload::Inline(bytes::Bytes::from(vec![b'1'; 600_000]));
    letters[2].job.payload = Payload::Stored(Digest([7; 32]));
    letters[3].job.model_id = Some("m".to_owned());
    for letter in &letters {
        world.store.dead_letters.write(letter).await.unwrap();
    }
    letters.reverse();
    let world = world.killed().await;
    let list = async |owner: Option<&str>, limit, cursor: Option<&str>| {
        world.dead_letters().list(owner.map(Owner::new).as_ref(), limit, cursor).await.unwrap()
    };
    let page = list(None, 100, None).await;
    assert_eq!((page.items, page.next_cursor), (letters.clone(), None));
    let anns: Vec<DeadLetter> = letters.iter().filter(|letter| *letter.job.owner.0 == *"ann").cloned().collect();
    assert_eq!(list(Some("ann"), 100, None).await.items, anns);
    assert_eq!(list(Some("eve"), 100, None).await.items, []);
    let (mut seen, mut cursor) = (Vec::new(), None);
    loop {
        let page = list(None, 4, cursor.as_deref()).await;
        seen.extend(page.items);
        cursor = page.next_cursor;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(seen, letters);
    for letter in &letters {
        assert_eq!(world.dead_letters().get(letter.job.invocation).await.unwrap().as_ref(), Some(letter));
    }
    assert!(world.dead_letters().list(None, 3, Some("nonsense")).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_letter_is_taken_away_once() {
    let world = world().await;
    let letter = letter("ann", world.now());
    // Written twice, as by a bury that is tried again.
    world.store.dead_letters.write(&letter).await.unwrap();
    world.store.dead_letters.write(&letter).await.unwrap();
    let removals = (0..20).map(|_| {
        let letters = world.dead_letters();
        let id = letter.job.invocation;
        async move { letters.remove(id).await.unwrap() }
    });
    let removed = futures_util::future::join_all(removals).await;
    assert_eq!(removed.into_iter().filter(|removed| *removed).count(), 1);
    assert_eq!(world.dead_letters().get(letter.job.invocation).await.unwrap(), None);
    let world = world.killed().await;
    assert_eq!(world.store.dead_letters.count().await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn letters_are_counted_age_out_and_make_room() {
    let mut config = Config::default();
    config.retention.logs_s = 100;
    config.queue.dead_letters_max = 3;
    let world = AwsWorld::<OnMoto>::open(config).await;
    let mut written = Vec::new();
    for n in 0..5 {
        let letter = letter("ann", Timestamp(world.now().as_millis() + n));
        world.store.dead_letters.write(&letter).await.unwrap();
        written.push(letter.job.invocation);
        assert_eq!(world.store.dead_letters.count().await.unwrap(), (n + 1).min(3));
    }
    let world = world.killed().await;
    assert_eq!(world.store.dead_letters.count().await.unwrap(), 3);
    let kept = world.dead_letters().list(None, 10, None).await.unwrap().items;
    let kept: BTreeSet<_> = kept.iter().map(|letter| letter.job.invocation).collect();
    assert_eq!(kept, written[2..].iter().copied().collect());
    world.pass(Duration::from_secs(101)).await;
    assert_eq!(world.dead_letters().list(None, 10, None).await.unwrap().items, []);
    assert_eq!(world.dead_letters().get(written[4]).await.unwrap(), None);
    assert_eq!(world.store.dead_letters.count().await.unwrap(), 0);
}
