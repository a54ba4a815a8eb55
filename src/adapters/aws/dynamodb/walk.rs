//! Newest first through an index whose entries are spread over several partitions.
//!
//! One partition takes a thousand writes a second. What many calls write to is therefore kept in shares, told apart by the last
//! byte of an id, and read by asking each share and taking the newest of what they answer. A number of shares may be raised at any
//! time; lowered it would hide what lies in the shares that are asked no more.

use std::collections::VecDeque;

use futures_util::future::try_join_all;
use uuid::Uuid;

use crate::domain::time::Timestamp;
use crate::ports::StoreError;

use super::database::{Database, Query};
use super::item::{Attributes, Item};
use super::tables::{Index, Table};

/// Shares of one owner's or one function's records: 4 000 calls a second.
pub(super) const SHARES: u8 = 4;
/// Shares of everybody's: 16 000 calls a second, beyond which the index, and with it the table, pushes back.
pub(super) const SHARES_OF_ALL: u8 = 16;

/// Digits of milliseconds, up to the year 5138.
const DIGITS: usize = 14;
const MS_MAX: u64 = 10_u64.pow(DIGITS as u32) - 1;
const INVALID: StoreError = StoreError::InvalidCursor;

/// Where an item lies in order of time, and of ids within a millisecond.
pub(super) fn seq(at: Timestamp, id: Uuid) -> String {
    format!("{:0DIGITS$}{id}", at.as_millis().min(MS_MAX))
}

fn share(id: Uuid, shares: u8) -> u8 {
    id.as_bytes()[15] % shares
}

/// The partition that an item of `whose` with this id is in.
pub(super) fn partition(whose: impl std::fmt::Display, id: Uuid) -> String {
    format!("{whose}#{}", share(id, SHARES))
}

/// The partition of everybody's that an item with this id is in.
pub(super) fn partition_of_all(id: Uuid) -> String {
    share(id, SHARES_OF_ALL).to_string()
}

pub(super) fn partitions(whose: impl std::fmt::Display) -> Vec<String> {
    (0..SHARES).map(|share| format!("{whose}#{share}")).collect()
}

pub(super) fn partitions_of_all() -> Vec<String> {
    (0..SHARES_OF_ALL).map(|share| share.to_string()).collect()
}

/// A cursor is the place of a page's last item. One that no page ended with is refused.
pub(super) fn decode(cursor: Option<&str>) -> Result<Option<String>, StoreError> {
    let Some(cursor) = cursor else { return Ok(None) };
    let (digits, id) = cursor.split_at_checked(DIGITS).ok_or(INVALID)?;
    let at: u64 = digits.parse().map_err(|_| INVALID)?;
    let id = Uuid::try_parse(id).map_err(|_| INVALID)?;
    if seq(Timestamp(at), id) == cursor { Ok(Some(cursor.to_owned())) } else { Err(INVALID) }
}

/// One entry of the index.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub seq: String,
    pub id: String,
}

pub(super) struct Walk<'a> {
    database: &'a Database,
    table: &'static Table,
    index: &'static Index,
    shares: Vec<Share>,
    low: String,
    high: String,
    /// What a page before this one ended with.
    after: Option<String>,
    /// Entries asked for at once, of each share.
    step: usize,
}

struct Share {
    partition: String,
    found: VecDeque<Place>,
    from: Option<Item>,
    /// Nothing more is to be asked for.
    is_read: bool,
}

impl<'a> Walk<'a> {
    /// Of what was created from `since` to `until`, both included, and lies after the place `after`.
    pub fn new(
        database: &'a Database,
        (table, index): (&'static Table, &'static Index),
        partitions: Vec<String>,
        (since, until): (Option<Timestamp>, Option<Timestamp>),
        after: Option<String>,
        step: usize,
    ) -> Self {
        let until = seq(until.unwrap_or(Timestamp(MS_MAX)), Uuid::max());
        let high = after.clone().map_or(until.clone(), |after| after.min(until));
        let share = |partition| Share { partition, found: VecDeque::new(), from: None, is_read: false };
        Self {
            database,
            table,
            index,
            shares: partitions.into_iter().map(share).collect(),
            low: seq(since.unwrap_or_default(), Uuid::nil()),
            high,
            after,
            step,
        }
    }

    /// Up to `count` more; fewer only at the end.
    pub async fn take(&mut self, count: usize) -> Result<Vec<Place>, StoreError> {
        let mut taken = Vec::new();
        while taken.len() < count {
            self.refill().await?;
            let newest = self.shares.iter_mut().max_by(|a, b| a.found.front().cmp(&b.found.front()));
            match newest.and_then(|share| share.found.pop_front()) {
                Some(place) => taken.push(place),
                None => break,
            }
        }
        Ok(taken)
    }

    /// Asks every share that has nothing left, so that the newest of all is among what was found.
    async fn refill(&mut self) -> Result<(), StoreError> {
        let (database, table, index, step) = (self.database, self.table, self.index, self.step);
        let (low, high, after) = (self.low.clone(), self.high.clone(), self.after.as_deref());
        if low > high {
            return Ok(());
        }
        let dry = self.shares.iter_mut().filter(|share| share.found.is_empty() && !share.is_read);
        let asked = dry.map(|share| {
            let between = Some((low.clone(), high.clone()));
            async move {
                while share.found.is_empty() && !share.is_read {
                    let answer = database
                        .query(Query {
                            index: Some(index),
                            between: between.clone(),
                            newest_first: true,
                            limit: step,
                            from: share.from.take(),
                            ..Query::new(table, &share.partition)
                        })
                        .await?;
                    for item in &answer.items {
                        let (seq, id) = (item.text(index.range)?.to_owned(), item.text(table.hash)?.to_owned());
                        if after != Some(seq.as_str()) {
                            share.found.push_back(Place { seq, id });
                        }
                    }
                    share.is_read = answer.next.is_none();
                    share.from = answer.next;
                }
                Ok::<(), StoreError>(())
            }
        });
        try_join_all(asked).await.map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_in_order_of_time() {
        let id = Uuid::new_v4();
        assert!(seq(Timestamp(999), Uuid::max()) < seq(Timestamp(1000), id));
        assert!(seq(Timestamp(1000), Uuid::nil()) < seq(Timestamp(1000), id));
        assert!(seq(Timestamp(u64::MAX), Uuid::nil()) >= seq(Timestamp(MS_MAX), Uuid::nil()));
    }

    #[test]
    fn a_cursor_is_the_place_of_an_item_and_nothing_else() {
        let place = seq(Timestamp(1_763_776_800_123), Uuid::now_v7());
        assert_eq!(decode(Some(&place)).unwrap(), Some(place.clone()));
        assert_eq!(decode(None).unwrap(), None);
        for wrong in [
            "",
            "nonsense",
            "' or 1=1",
            &place[1..],
            &format!("{place}0"),
            &place.to_uppercase(),
            "é".repeat(30).as_str(),
        ] {
            assert!(matches!(decode(Some(wrong)), Err(StoreError::InvalidCursor)), "{wrong}");
        }
    }

    #[test]
    fn an_id_lies_in_a_share_that_is_asked() {
        for _ in 0..64 {
            let id = Uuid::new_v4();
            assert!(partitions("ann#OPEN").contains(&partition("ann#OPEN", id)));
            assert!(partitions_of_all().contains(&partition_of_all(id)));
        }
    }
}
