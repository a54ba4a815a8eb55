//! Locks, an item each, which no clock is compared for: a node that wants one watches how long its holder has written nothing.
//!
//! Each write of a holder leaves another random `beat`. Whoever has seen the same beat for the time that its holder asked for, by a clock
//! of its own, may take the lock on condition that the beat is still that one. The holder counts from before it asked, so its time is over
//! before anybody else's begins, however far apart clocks are. An item stays for ever, for its fence.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;

use crate::ports::clock::Clock;
use crate::ports::locks::{Fence, Locks};
use crate::ports::{StoreError, Unavailable};

use super::database::{Database, Expression, key_in};
use super::item::{Attributes, Item, number, text};
use super::tables::KEYS;

const LOCK: &str = "lock";
const HOLD: &str = "SET #holder = :holder, #fence = :fence, #beat = :beat, #ms = :ms";

pub(super) struct ItemLocks {
    database: Arc<Database>,
    clock: Arc<dyn Clock>,
    /// The names are a handful, from our own code.
    known: Mutex<HashMap<String, Known>>,
}

/// What this process has seen of a lock.
#[derive(Clone)]
struct Known {
    beat: String,
    /// When that beat was first seen here; the time of asking, where it is our own.
    since: Duration,
    own: Option<Own>,
}

/// It was given to somebody of this process.
#[derive(Clone)]
struct Own {
    holder: String,
    fence: u64,
    until: Duration,
}

impl ItemLocks {
    pub fn new(database: Arc<Database>, clock: Arc<dyn Clock>) -> Self {
        Self { database, clock, known: Mutex::default() }
    }

    fn known(&self) -> std::sync::MutexGuard<'_, HashMap<String, Known>> {
        // Each entry is written whole.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The fence that `holder` has, while its time is not over.
    fn held(&self, name: &str, holder: &str, now: Duration) -> Option<(u64, String)> {
        let known = self.known();
        let known = known.get(name)?;
        let own = known.own.as_ref().filter(|own| own.holder == holder && own.until > now)?;
        Some((own.fence, known.beat.clone()))
    }

    /// Since when the lock has been as it is.
    fn since(&self, name: &str, beat: &str, now: Duration) -> Duration {
        let mut all = self.known();
        let known = all.entry(name.to_owned()).or_insert_with(|| Known { beat: String::new(), since: now, own: None });
        if known.beat != beat {
            *known = Known { beat: beat.to_owned(), since: now, own: None };
        }
        known.since
    }

    /// Writes the holder on a condition; `None`: it was not as expected.
    async fn hold(
        &self,
        name: &str,
        (holder, fence): (&str, u64),
        valid_for: Duration,
        asked: Duration,
        on: Expression,
    ) -> Result<Option<Fence>, StoreError> {
        let beat = uuid::Uuid::new_v4().to_string();
        let change = Expression::new(
            HOLD,
            [
                (":holder", text(holder)),
                (":fence", number(fence)),
                (":beat", text(&*beat)),
                (":ms", number(valid_for.as_millis())),
            ],
        );
        if self.database.update(&KEYS, key_in(&KEYS, LOCK, name), change, on).await?.is_none() {
            return Ok(None);
        }
        let own = Some(Own { holder: holder.to_owned(), fence, until: asked + valid_for });
        self.known().insert(name.to_owned(), Known { beat, since: asked, own });
        Ok(Some(Fence(fence)))
    }

    async fn acquired(&self, name: &str, holder: &str, valid_for: Duration) -> Result<Option<Fence>, StoreError> {
        let asked = self.clock.monotonic();
        let held = self.held(name, holder, asked);
        if let Some((fence, beat)) = &held {
            let renewed = self.hold(name, (holder, *fence), valid_for, asked, as_seen(beat)).await?;
            if renewed.is_some() {
                return Ok(renewed);
            }
        }
        let Some(item) = self.database.get(&KEYS, key_in(&KEYS, LOCK, name)).await? else {
            let on = Expression::new("attribute_not_exists(#pk)", []);
            return self.hold(name, (holder, 1), valid_for, asked, on).await;
        };
        let (fence, beat, now) = (item.number("fence")?, item.text("beat")?, self.clock.monotonic());
        let next = match item.maybe_text("holder") {
            // A renewal whose answer was lost.
            Some(of) if of == holder && held.as_ref().is_some_and(|(own, _)| *own == fence) => fence,
            Some(of) if of != holder && !self.is_over(name, &item, now)? => return Ok(None),
            _ => fence + 1,
        };
        self.hold(name, (holder, next), valid_for, asked, as_seen(beat)).await
    }

    /// Whether its holder has been silent for as long as it had asked for.
    fn is_over(&self, name: &str, item: &Item, now: Duration) -> Result<bool, StoreError> {
        let since = self.since(name, item.text("beat")?, now);
        Ok(now.saturating_sub(since) > Duration::from_millis(item.number("ms")?))
    }
}

fn as_seen(beat: &str) -> Expression {
    Expression::new("#beat = :seen", [(":seen", text(beat))])
}

fn unavailable(error: StoreError) -> Unavailable {
    Unavailable(error.to_string())
}

#[async_trait]
impl Locks for ItemLocks {
    async fn acquire(&self, name: &str, holder: &str, valid_for: Duration) -> Result<Option<Fence>, Unavailable> {
        self.acquired(name, holder, valid_for).await.map_err(unavailable)
    }

    async fn release(&self, name: &str, holder: &str) -> Result<(), Unavailable> {
        // Another beat, so that a renewal that is under way comes too late.
        let beat = uuid::Uuid::new_v4().to_string();
        let change = Expression::new("SET #beat = :beat REMOVE #holder", [(":beat", text(beat))]);
        let on = Expression::new("#holder = :holder", [(":holder", text(holder))]);
        self.database.update(&KEYS, key_in(&KEYS, LOCK, name), change, on).await.map_err(unavailable)?;
        if let Some(known) = self.known().get_mut(name) {
            known.own = None;
        }
        Ok(())
    }
}
