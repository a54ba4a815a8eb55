//! What the policies have learned, an item each.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::future::try_join_all;
use futures_util::{StreamExt, TryStreamExt, stream};

use crate::domain::ids::FunctionId;
use crate::domain::policy::learned::Lesson;
use crate::domain::time::Timestamp;
use crate::ports::StoreError;
use crate::ports::clock::Clock;
use crate::ports::lessons::Lessons;

use super::database::{AT_ONCE, Database, Expression, key_in};
use super::item::{Attributes, Item, number, text, ttl};
use super::registry;
use super::tables::LESSONS;

/// Partitions, so that all workers together may save some thousand a second.
const SHARES: u8 = 8;
/// Lessons read: as many as the policies remember of functions (10 000) and of versions (4 096), and some to spare.
const READ_MAX: usize = 20_000;

pub(super) struct LessonItems {
    database: Arc<Database>,
    clock: Arc<dyn Clock>,
    logs_ms: u64,
}

impl LessonItems {
    pub fn new(database: Arc<Database>, clock: Arc<dyn Clock>, logs_s: u64) -> Self {
        Self { database, clock, logs_ms: logs_s.saturating_mul(1000) }
    }

    fn item(&self, lesson: &Lesson, now: Timestamp) -> Item {
        let kind = if lesson.version.is_some() { "v" } else { "-" };
        let share = (lesson.function.0.as_bytes()[15] % SHARES).to_string();
        let mut item = key_in(&LESSONS, share, format!("{}#{kind}", lesson.function));
        item.extend([
            ("text".to_owned(), text(&*lesson.text)),
            ("saved".to_owned(), number(now.as_millis())),
            // A function that is called is learned of again.
            ("ttl".to_owned(), ttl(Timestamp(now.as_millis().saturating_add(self.logs_ms)))),
        ]);
        if let Some(version) = lesson.version {
            item.insert("version".to_owned(), number(version));
        }
        item
    }
}

#[async_trait]
impl Lessons for LessonItems {
    async fn load(&self) -> Result<Vec<Lesson>, StoreError> {
        let oldest = self.clock.now().as_millis().saturating_sub(self.logs_ms);
        let shares: Vec<String> = (0..SHARES).map(|share| share.to_string()).collect();
        let found = try_join_all(shares.iter().map(|share| self.database.query_all(&LESSONS, share))).await?;
        // One that somebody put something else into is as if it were not there.
        let mut lessons: Vec<(u64, Lesson)> = found.into_iter().flatten().filter_map(|item| read(&item)).collect();
        lessons.retain(|(saved, _)| *saved > oldest);
        lessons.sort_by_key(|(saved, _)| *saved);
        let over = lessons.len().saturating_sub(READ_MAX);
        let lessons: Vec<Lesson> = lessons.into_iter().skip(over).map(|(_, lesson)| lesson).collect();
        // Of a function that is gone, or of a version that was followed by another, nothing is to be expected.
        let mut ids: Vec<FunctionId> = lessons.iter().map(|lesson| lesson.function).collect();
        ids.sort_unstable();
        ids.dedup();
        let living = registry::living(&self.database, ids).await?;
        let current: HashMap<FunctionId, u32> =
            living.into_iter().map(|function| (function.id, function.current)).collect();
        let is_of_use = |lesson: &Lesson| {
            let current = current.get(&lesson.function);
            current.is_some_and(|current| lesson.version.is_none_or(|version| version == *current))
        };
        Ok(lessons.into_iter().filter(is_of_use).collect())
    }

    async fn save(&self, lessons: Vec<Lesson>) -> Result<(), StoreError> {
        let now = self.clock.now();
        // The last of each: two of one key can't be in a batch.
        let last: HashMap<(FunctionId, Option<u32>), Lesson> =
            lessons.into_iter().map(|lesson| ((lesson.function, lesson.version), lesson)).collect();
        let (of_functions, of_versions): (Vec<Lesson>, Vec<Lesson>) =
            last.into_values().partition(|lesson| lesson.version.is_none());
        let items = of_functions.iter().map(|lesson| self.item(lesson, now)).collect();
        self.database.put_all(&LESSONS, items).await?;
        // One of a later version, by a worker that has it already, stands.
        stream::iter(of_versions)
            .map(async |lesson| {
                let version = number(lesson.version.unwrap_or_default());
                let on =
                    Expression::new("attribute_not_exists(#version) OR #version <= :version", [(":version", version)]);
                self.database.put(&LESSONS, self.item(&lesson, now), Some(on)).await.map(|_| ())
            })
            .buffer_unordered(AT_ONCE)
            .try_collect()
            .await
    }
}

fn read(item: &Item) -> Option<(u64, Lesson)> {
    let (function, _) = item.maybe_text("of")?.split_once('#')?;
    let version = item.maybe_number("version").map(u32::try_from).transpose().ok()?;
    let lesson = Lesson { function: function.parse().ok()?, version, text: item.maybe_text("text")?.to_owned() };
    Some((item.maybe_number("saved")?, lesson))
}
