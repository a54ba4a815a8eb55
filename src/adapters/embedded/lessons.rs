//! What the policies have learned, a row each.

use std::sync::Arc;

use async_trait::async_trait;
use rusqlite::{Connection, params};

use crate::domain::ids::FunctionId;
use crate::domain::policy::learned::Lesson;
use crate::ports::StoreError;
use crate::ports::clock::Clock;
use crate::ports::lessons::Lessons;

use super::store::Store;

/// Rows kept: as many as the policies remember of functions (10 000) and of versions (4 096), and some to spare.
const ROWS_MAX: u64 = 20_000;
/// Rows in one commit, so that nobody's write waits long behind them.
const BATCH: usize = 256;

pub(super) struct LessonRows {
    store: Arc<Store>,
    clock: Arc<dyn Clock>,
}

impl LessonRows {
    pub fn new(store: Arc<Store>, clock: Arc<dyn Clock>) -> Self {
        Self { store, clock }
    }
}

#[async_trait]
impl Lessons for LessonRows {
    async fn load(&self) -> Result<Vec<Lesson>, StoreError> {
        self.store.read(load).await
    }

    async fn save(&self, lessons: Vec<Lesson>) -> Result<(), StoreError> {
        let now = self.clock.now().as_millis() as i64;
        for batch in lessons.chunks(BATCH).map(<[Lesson]>::to_vec) {
            self.store.write(move |connection| save(connection, &batch, now)).await?;
        }
        Ok(())
    }
}

fn load(connection: &Connection) -> Result<Vec<Lesson>, StoreError> {
    // Of a function that is gone, or of a version that was followed by another, nothing is to be expected.
    let mut statement = connection.prepare(
        "SELECT function, version, body FROM lessons JOIN functions ON functions.id = function
         WHERE deleted_at IS NULL AND version IN (0, current) ORDER BY saved_at",
    )?;
    let mut rows = statement.query([])?;
    let mut lessons = Vec::new();
    while let Some(row) = rows.next()? {
        // A row that somebody put something else into is as if it were not there.
        let (Ok(function), Ok(version), Ok(text)) = (row.get(0), row.get::<_, u32>(1), row.get(2)) else { continue };
        let version = Some(version).filter(|version| *version > 0);
        lessons.push(Lesson { function: FunctionId(uuid::Uuid::from_bytes(function)), version, text });
    }
    Ok(lessons)
}

fn save(connection: &Connection, lessons: &[Lesson], now: i64) -> Result<(), StoreError> {
    let mut older =
        connection.prepare_cached("DELETE FROM lessons WHERE function = ?1 AND version BETWEEN 1 AND ?2")?;
    let mut insert = connection
        .prepare_cached("INSERT OR REPLACE INTO lessons (function, version, body, saved_at) VALUES (?1, ?2, ?3, ?4)")?;
    for Lesson { function, version, text } in lessons {
        let (function, version) = (function.0.as_bytes(), version.unwrap_or(0));
        older.execute(params![function, version])?;
        insert.execute(params![function, version, text, now])?;
    }
    let mut over = connection.prepare_cached(
        "DELETE FROM lessons WHERE (function, version) IN
             (SELECT function, version FROM lessons ORDER BY saved_at DESC LIMIT -1 OFFSET ?1)",
    )?;
    over.execute([ROWS_MAX])?;
    Ok(())
}
