//! Listings of invocation records: one index is chosen, the narrowest, and walked newest first; what it does not know is looked at
//! in the records.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::{StreamExt, stream};

use crate::domain::invocation::StoredRecord;
use crate::domain::outcome::Status;
use crate::domain::page::Page;
use crate::domain::time::Timestamp;
use crate::ports::StoreError;
use crate::ports::invocations::RecordQuery;

use super::database::{by_text, key_of};
use super::invocations::Rows;
use super::item::Item;
use super::records::{Row, WAITED_FOR, state};
use super::tables::{BY_FAILURE, BY_FUNCTION, BY_OWNER, BY_STATE, BY_TIME, INVOCATIONS, Index};
use super::walk::{self, Walk, partitions, partitions_of_all};

/// Records on one page, whatever was asked for.
const PAGE_MAX: usize = 1000;
/// A page ends early when its records hold this much, so that a listing of long outputs does not fill the memory.
const PAGE_BYTES_MAX: usize = 8 << 20;
/// Records looked at for one page. Only a listing by success, or everybody's by state, leaves many out.
const LOOKED_AT_MAX: usize = 10_000;
/// Records looked at together.
const STEP_MAX: usize = 100;
/// Artifacts of one page read at once.
const ARTIFACTS_AT_ONCE: usize = 8;

/// Which index, and which of its partitions.
fn choose(query: &RecordQuery) -> (&'static Index, Vec<String>) {
    let state = query.status.and_then(state);
    let failed = state.filter(|_| query.status.is_some_and(Status::is_final));
    match (query.function, &query.owner) {
        (Some(function), _) if let Some(failed) = failed => {
            (&BY_FAILURE, partitions(format_args!("{function}#{failed}")))
        }
        (_, Some(owner)) if let Some(state) = state => (&BY_STATE, partitions(format_args!("{owner}#{state}"))),
        (Some(function), _) => (&BY_FUNCTION, partitions(function)),
        (None, Some(owner)) => (&BY_OWNER, partitions(owner)),
        (None, None) => (&BY_TIME, partitions_of_all()),
    }
}

fn is_wanted(query: &RecordQuery, row: &Row) -> bool {
    query.owner.as_ref().is_none_or(|owner| *owner == row.owner)
        && query.function.is_none_or(|function| function == row.function)
        && query.status.is_none_or(|status| status == row.status)
        && query.since.is_none_or(|since| row.created >= since)
        && query.until.is_none_or(|until| row.created <= until)
}

pub(super) async fn list(rows: &Rows, query: &RecordQuery) -> Result<Page<Arc<StoredRecord>>, StoreError> {
    let after = walk::decode(query.cursor.as_deref())?;
    let now = rows.clock.now();
    if let Some(id) = query.invocation {
        let item = rows.database.get(&INVOCATIONS, key_of(&INVOCATIONS, id.to_string())).await?;
        let row = item.map(|item| rows.records.read(item, now)).transpose()?.flatten();
        let found = row.filter(|row| after.is_none() && is_wanted(query, row));
        return Ok(Page { items: whole(rows, found.into_iter().collect(), now).await?, next_cursor: None });
    }
    let limit = query.limit.clamp(1, PAGE_MAX);
    let (index, partitions) = choose(query);
    let since = rows.records.oldest(now).max(query.since.unwrap_or_default());
    let step = (limit + 1).min(STEP_MAX);
    let mut walk =
        Walk::new(&rows.database, (&INVOCATIONS, index), partitions, (Some(since), query.until), after, step);
    let (mut found, mut bytes, mut looked_at, mut next_cursor, mut last) = (Vec::new(), 0, 0, None, None);
    'page: while looked_at < LOOKED_AT_MAX {
        let places = walk.take(step.min(limit + 1 - found.len())).await?;
        if places.is_empty() {
            last = None;
            break;
        }
        looked_at += places.len();
        let keys = places.iter().map(|place| key_of(&INVOCATIONS, &*place.id)).collect();
        let mut items: HashMap<String, Item> = by_text(rows.database.get_all(&INVOCATIONS, keys).await?, "id");
        for place in places {
            let item = items.remove(&place.id);
            let row = item.map(|item| rows.records.read(item, now)).transpose()?.flatten();
            let Some(row) = row.filter(|row| is_wanted(query, row)) else {
                last = Some(place.seq);
                continue;
            };
            if found.len() == limit || bytes >= PAGE_BYTES_MAX {
                next_cursor = last.take();
                break 'page;
            }
            (bytes, last) = (bytes + row.size, Some(place.seq));
            found.push(row);
        }
    }
    // Enough was looked at: the next page goes on from here.
    next_cursor = next_cursor.or(last);
    Ok(Page { items: whole(rows, found, now).await?, next_cursor })
}

/// Open records of synchronous calls with a key, everybody's.
pub(super) async fn waited_for(
    rows: &Rows,
    until: Timestamp,
    max: usize,
) -> Result<Vec<Arc<StoredRecord>>, StoreError> {
    let now = rows.clock.now();
    let between = (Some(rows.records.oldest(now)), Some(until));
    let index = (&INVOCATIONS, &BY_FAILURE);
    let mut walk = Walk::new(&rows.database, index, partitions(WAITED_FOR), between, None, max.clamp(1, STEP_MAX));
    let mut found = Vec::new();
    while found.len() < max {
        let places = walk.take((max - found.len()).min(STEP_MAX)).await?;
        if places.is_empty() {
            break;
        }
        let keys = places.iter().map(|place| key_of(&INVOCATIONS, &*place.id)).collect();
        for item in rows.database.get_all(&INVOCATIONS, keys).await? {
            // The index lags behind: some have ended.
            found.extend(rows.records.read(item, now)?.filter(|row| !row.status.is_final()));
        }
    }
    whole(rows, found, now).await
}

/// The records themselves, without results that are over. One that can't be read does not hide the others.
async fn whole(rows: &Rows, found: Vec<Row>, now: Timestamp) -> Result<Vec<Arc<StoredRecord>>, StoreError> {
    let read = found.into_iter().map(|row| async move {
        let is_over = row.is_over(now);
        let mut stored = rows.records.whole(row).await?;
        if is_over {
            stored.record.result = None;
        }
        Ok::<_, StoreError>(Arc::new(stored))
    });
    let mut records = Vec::new();
    let mut read = stream::iter(read).buffered(ARTIFACTS_AT_ONCE);
    while let Some(one) = read.next().await {
        match one {
            Ok(stored) => records.push(stored),
            Err(error @ StoreError::Corrupt(_)) => tracing::warn!(%error, "a record is left out of a listing"),
            Err(error) => return Err(error),
        }
    }
    Ok(records)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::{FunctionId, Owner};

    #[test]
    fn every_listing_walks_the_narrowest_index() {
        let function = Some(FunctionId(uuid::Uuid::nil()));
        let owner = Some(Owner::new("ann"));
        for (query, index) in [
            (RecordQuery::default(), "by_time"),
            (RecordQuery { owner: owner.clone(), ..Default::default() }, "by_owner"),
            (RecordQuery { owner: owner.clone(), function, ..Default::default() }, "by_function"),
            (RecordQuery { status: Some(Status::Failed), ..Default::default() }, "by_time"),
            (RecordQuery { owner: owner.clone(), status: Some(Status::Queued), ..Default::default() }, "by_state"),
            (RecordQuery { owner: owner.clone(), status: Some(Status::Success), ..Default::default() }, "by_owner"),
            (RecordQuery { function, status: Some(Status::Running), ..Default::default() }, "by_function"),
            (
                RecordQuery { owner: owner.clone(), function, status: Some(Status::Running), ..Default::default() },
                "by_state",
            ),
            (RecordQuery { owner, function, status: Some(Status::Failed), ..Default::default() }, "by_failure"),
            (RecordQuery { function, status: Some(Status::Dead), ..Default::default() }, "by_failure"),
            (RecordQuery { function, status: Some(Status::Success), ..Default::default() }, "by_function"),
        ] {
            assert_eq!(choose(&query).0.name, index, "{query:?}");
        }
    }
}
