//! Dead letters: jobs that were given up, newest kept.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::try_join_all;
use futures_util::{StreamExt, TryStreamExt, stream};

use crate::config::Config;
use crate::domain::ids::{InvocationId, Owner, VersionKey};
use crate::domain::invocation::Mode;
use crate::domain::job::{DeadLetter, Job, Payload};
use crate::domain::page::Page;
use crate::domain::time::Timestamp;
use crate::ports::StoreError;
use crate::ports::artifacts::{ArtifactError, ArtifactStore};
use crate::ports::clock::Clock;
use crate::ports::queue::DeadLetters;

use super::database::{AT_ONCE, Database, Query, by_text, key_of};
use super::item::{Attributes, Item, binary, damaged, item, number, take_binary, text, ttl};
use super::tables::{BY_OWNER, BY_TIME, DEAD_LETTERS, Index};
use super::walk::{self, Place, Walk, partition, partition_of_all, partitions, partitions_of_all, seq};

/// Letters on one page; a payload may be a mebibyte.
const PAGE_MAX: usize = 100;
/// A payload up to this size lies in its item, which may have 400 KB; a larger one among the artifacts.
const IN_ITEM_BYTES_MAX: usize = 32 << 10;
/// How long a count is believed. Own letters are counted as they come and go; others' are seen at the next count.
const COUNT_FOR: Duration = Duration::from_secs(30);
/// Of a reason.
const REASON_BYTES_MAX: usize = 4096;

pub struct Letters {
    database: Arc<Database>,
    artifacts: Arc<dyn ArtifactStore>,
    clock: Arc<dyn Clock>,
    logs_ms: u64,
    letters_max: u64,
    counted: Mutex<Option<Counted>>,
}

#[derive(Clone, Copy)]
struct Counted {
    letters: u64,
    /// On the monotonic clock.
    at: Duration,
}

impl Letters {
    pub(super) fn new(
        database: Arc<Database>,
        artifacts: Arc<dyn ArtifactStore>,
        clock: Arc<dyn Clock>,
        config: &Config,
    ) -> Self {
        Self {
            database,
            artifacts,
            clock,
            logs_ms: config.retention.logs_s.saturating_mul(1000),
            letters_max: config.queue.dead_letters_max,
            counted: Mutex::new(None),
        }
    }

    /// Durable on return. Writing the same letter again replaces it. Where there are too many, the oldest give way.
    pub async fn write(&self, letter: &DeadLetter) -> Result<(), StoreError> {
        let before = self.count().await?;
        let item = self.item(letter).await?;
        self.database.put(&DEAD_LETTERS, item, None).await?;
        self.counted_more(1);
        let over = (before + 1).saturating_sub(self.letters_max);
        if over > 0 {
            self.drop_oldest(usize::try_from(over).unwrap_or(usize::MAX)).await?;
        }
        Ok(())
    }

    /// How many there are. Those of other nodes may be counted half a minute late.
    pub async fn count(&self) -> Result<u64, StoreError> {
        let now = self.clock.monotonic();
        if let Some(counted) = *self.counted()
            && now.saturating_sub(counted.at) < COUNT_FOR
        {
            return Ok(counted.letters);
        }
        let since = self.oldest();
        let shares = partitions_of_all();
        let counts = try_join_all(shares.iter().map(|share| self.count_in(share, since))).await?;
        let letters = counts.into_iter().sum();
        *self.counted() = Some(Counted { letters, at: now });
        Ok(letters)
    }

    async fn count_in(&self, share: &str, since: Timestamp) -> Result<u64, StoreError> {
        let (mut count, mut from) = (0, None);
        loop {
            let between = Some((seq(since, uuid::Uuid::nil()), seq(Timestamp(u64::MAX), uuid::Uuid::max())));
            let query = Query { index: Some(&BY_TIME), between, count: true, from, ..Query::new(&DEAD_LETTERS, share) };
            let answer = self.database.query(query).await?;
            count += answer.count;
            from = answer.next;
            if from.is_none() {
                return Ok(count);
            }
        }
    }

    fn counted(&self) -> std::sync::MutexGuard<'_, Option<Counted>> {
        self.counted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn counted_more(&self, by: i64) {
        if let Some(counted) = self.counted().as_mut() {
            counted.letters = counted.letters.saturating_add_signed(by);
        }
    }

    /// Of every share the oldest are asked for, since one of them may hold them all.
    async fn drop_oldest(&self, letters: usize) -> Result<(), StoreError> {
        let letters = letters.min(PAGE_MAX);
        let shares = partitions_of_all();
        let asked = shares.iter().map(|share| {
            self.database.query(Query { index: Some(&BY_TIME), limit: letters, ..Query::new(&DEAD_LETTERS, share) })
        });
        let found = try_join_all(asked).await?;
        let mut oldest: Vec<(String, String)> = Vec::new();
        for item in found.iter().flat_map(|answer| &answer.items) {
            oldest.push((item.text("seq")?.to_owned(), item.text("id")?.to_owned()));
        }
        oldest.sort_unstable();
        let dropped: Vec<bool> = stream::iter(oldest.into_iter().take(letters))
            .map(async |(_, id)| self.database.delete(&DEAD_LETTERS, key_of(&DEAD_LETTERS, id)).await)
            .buffer_unordered(AT_ONCE)
            .try_collect()
            .await?;
        self.counted_more(-(dropped.into_iter().filter(|dropped| *dropped).count() as i64));
        Ok(())
    }

    /// When the oldest that still is was given up.
    fn oldest(&self) -> Timestamp {
        Timestamp(self.clock.now().as_millis().saturating_sub(self.logs_ms).saturating_add(1))
    }

    async fn item(&self, letter: &DeadLetter) -> Result<Item, StoreError> {
        let job = &letter.job;
        let id = job.invocation.0;
        let (payload, digest, inline) = match &job.payload {
            Payload::Inline(bytes) if bytes.len() <= IN_ITEM_BYTES_MAX => (Some(binary(bytes.to_vec())), None, None),
            // It was in the message, and is again when it is read.
            Payload::Inline(bytes) => (None, Some(self.artifacts.put(bytes.clone()).await?), Some(number(1))),
            Payload::Stored(digest) => (None, Some(*digest), None),
        };
        let gone = Timestamp(letter.died_at.as_millis().saturating_add(self.logs_ms));
        let reason = &letter.reason[..letter.reason.floor_char_boundary(REASON_BYTES_MAX)];
        Ok(item([
            ("id", Some(text(id.to_string()))),
            ("owner", Some(text(&*job.owner.0))),
            ("function", Some(text(job.version.function.to_string()))),
            ("version", Some(number(job.version.number))),
            ("payload", payload),
            ("digest", digest.map(|digest| text(digest.to_string()))),
            ("inline", inline),
            ("model", job.model_id.as_deref().map(text)),
            ("accepted", Some(number(job.accepted_at.as_millis()))),
            ("attempts", Some(number(letter.attempts))),
            ("reason", Some(text(reason))),
            ("died", Some(number(letter.died_at.as_millis()))),
            ("ttl", Some(ttl(gone))),
            ("seq", Some(text(seq(letter.died_at, id)))),
            ("of_owner", Some(text(partition(&job.owner, id)))),
            ("of_all", Some(text(partition_of_all(id)))),
        ]))
    }

    async fn read(&self, mut item: Item) -> Result<DeadLetter, StoreError> {
        let payload = match take_binary(&mut item, "payload") {
            Some(bytes) => Payload::Inline(bytes),
            None if item.contains_key("inline") => Payload::Inline(self.artifact(&item).await?),
            None => Payload::Stored(item.parsed("digest")?),
        };
        Ok(DeadLetter {
            job: Job {
                invocation: item.parsed("id")?,
                owner: Owner::new(item.text("owner")?),
                version: VersionKey { function: item.parsed("function")?, number: item.small("version")? },
                payload,
                model_id: item.maybe_text("model").map(ToOwned::to_owned),
                accepted_at: item.time("accepted")?,
                mode: Mode::Async,
                // Nobody waits for a letter's job any more.
            },
            attempts: item.small("attempts")?,
            reason: item.text("reason")?.to_owned(),
            died_at: item.time("died")?,
        })
    }

    async fn artifact(&self, item: &Item) -> Result<Bytes, StoreError> {
        self.artifacts.get(item.parsed("digest")?).await.map_err(|error| match error {
            ArtifactError::NotFound => damaged("read a dead letter", "its payload is gone"),
            ArtifactError::Store(error) => error,
        })
    }

    fn is_kept(&self, item: &Item) -> bool {
        item.maybe_number("died").is_some_and(|died| died >= self.oldest().as_millis())
    }
}

#[async_trait]
impl DeadLetters for Letters {
    async fn list(
        &self,
        owner: Option<&Owner>,
        limit: usize,
        cursor: Option<&str>,
    ) -> Result<Page<DeadLetter>, StoreError> {
        let (after, limit) = (walk::decode(cursor)?, limit.clamp(1, PAGE_MAX));
        let (index, partitions): (&'static Index, _) = match owner {
            Some(owner) => (&BY_OWNER, partitions(owner)),
            None => (&BY_TIME, partitions_of_all()),
        };
        let span = (Some(self.oldest()), None);
        let mut walk = Walk::new(&self.database, (&DEAD_LETTERS, index), partitions, span, after, limit + 1);
        let mut places = walk.take(limit + 1).await?;
        let more = places.len() > limit;
        places.truncate(limit);
        let next_cursor = places.last().filter(|_| more).map(|last| last.seq.clone());
        let keys = places.iter().map(|place| key_of(&DEAD_LETTERS, &*place.id)).collect();
        let mut items = by_text(self.database.get_all(&DEAD_LETTERS, keys).await?, "id");
        let found: Vec<Item> = places.into_iter().filter_map(|Place { id, .. }| items.remove(&id)).collect();
        let items = stream::iter(found).map(|item| self.read(item)).buffered(AT_ONCE).try_collect().await?;
        Ok(Page { items, next_cursor })
    }

    async fn get(&self, id: InvocationId) -> Result<Option<DeadLetter>, StoreError> {
        let found = self.database.get(&DEAD_LETTERS, key_of(&DEAD_LETTERS, id.to_string())).await?;
        match found.filter(|item| self.is_kept(item)) {
            Some(item) => self.read(item).await.map(Some),
            None => Ok(None),
        }
    }

    async fn remove(&self, id: InvocationId) -> Result<bool, StoreError> {
        let removed = self.database.delete(&DEAD_LETTERS, key_of(&DEAD_LETTERS, id.to_string())).await?;
        if removed {
            self.counted_more(-1);
        }
        Ok(removed)
    }
}
