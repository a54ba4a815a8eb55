//! Makes the tables: what is there stays, what is missing is made, and it returns when all can be used.

use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::error::BuildError;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, GlobalSecondaryIndex, IndexStatus, KeySchemaElement, KeyType, Projection,
    ProjectionType, ScalarAttributeType, TableDescription, TableStatus, TimeToLiveSpecification, TimeToLiveStatus,
};

use crate::ports::StoreError;

use super::errors::failed;
use super::tables::{Index, TABLES, TTL, Table};

/// A table is there after some seconds; with indexes on a bad day after minutes.
const READY_MAX: Duration = Duration::from_secs(300);
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// What became of one table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Made {
    pub name: String,
    /// Or it was there.
    pub is_new: bool,
}

/// Makes every table whose name begins with `prefix` that is not there yet, one after the other.
///
/// # Errors
/// The service's, and where a table of that name has other keys or lacks an index.
pub async fn create_tables(client: &Client, prefix: &str) -> Result<Vec<Made>, StoreError> {
    let mut made = Vec::new();
    for table in TABLES {
        let name = table.full_name(prefix);
        let is_new = create(client, table, &name).await?;
        made.push(Made { name, is_new });
    }
    for table in TABLES {
        let name = table.full_name(prefix);
        until_active(client, table, &name).await?;
        if table.expires {
            expire(client, &name).await?;
        }
    }
    Ok(made)
}

/// `false`: it is there.
async fn create(client: &Client, table: &Table, name: &str) -> Result<bool, StoreError> {
    let request = client
        .create_table()
        .table_name(name)
        .billing_mode(BillingMode::PayPerRequest)
        .set_key_schema(Some(built(keys(table.hash, table.range))?))
        .set_attribute_definitions(Some(built(attributes(table))?))
        .set_global_secondary_indexes(indexes(table)?);
    match request.send().await {
        Ok(_) => Ok(true),
        Err(error) if error.as_service_error().is_some_and(|error| error.is_resource_in_use_exception()) => Ok(false),
        Err(error) => Err(failed(&format!("create the table {name}"), &error)),
    }
}

fn built<T>(result: Result<T, BuildError>) -> Result<T, StoreError> {
    result.map_err(|error| StoreError::Unavailable(format!("describe a table: {error}")))
}

fn keys(hash: &str, range: Option<&str>) -> Result<Vec<KeySchemaElement>, BuildError> {
    let hash = Some((hash, KeyType::Hash));
    let range = range.map(|range| (range, KeyType::Range));
    let key = |(name, kind)| KeySchemaElement::builder().attribute_name(name).key_type(kind).build();
    [hash, range].into_iter().flatten().map(key).collect()
}

fn attributes(table: &Table) -> Result<Vec<AttributeDefinition>, BuildError> {
    let define =
        |name| AttributeDefinition::builder().attribute_name(name).attribute_type(ScalarAttributeType::S).build();
    table.key_attributes().into_iter().map(define).collect()
}

fn indexes(table: &Table) -> Result<Option<Vec<GlobalSecondaryIndex>>, StoreError> {
    let index = |index: &Index| {
        let projected = if index.whole { ProjectionType::All } else { ProjectionType::KeysOnly };
        GlobalSecondaryIndex::builder()
            .index_name(index.name)
            .set_key_schema(Some(keys(index.hash, Some(index.range))?))
            .projection(Projection::builder().projection_type(projected).build())
            .build()
    };
    let all: Vec<_> = built(table.indexes.iter().map(index).collect())?;
    Ok((!all.is_empty()).then_some(all))
}

async fn until_active(client: &Client, table: &Table, name: &str) -> Result<(), StoreError> {
    let looked = async {
        loop {
            let answer = client.describe_table().table_name(name).send().await;
            let answer = answer.map_err(|error| failed(&format!("look at the table {name}"), &error))?;
            let Some(found) = answer.table else { continue };
            check(table, name, &found)?;
            if is_active(&found) {
                return Ok(());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    let late = || StoreError::Unavailable(format!("the table {name} is not ready after {READY_MAX:?}: run this again"));
    tokio::time::timeout(READY_MAX, looked).await.map_err(|_| late())?
}

fn is_active(found: &TableDescription) -> bool {
    let indexes = found.global_secondary_indexes();
    found.table_status() == Some(&TableStatus::Active)
        && indexes.iter().all(|index| index.index_status().is_none_or(|status| *status == IndexStatus::Active))
}

/// A table of another make under this name would lose what is written to it.
fn check(table: &Table, name: &str, found: &TableDescription) -> Result<(), StoreError> {
    let wrong = |what: &str| {
        Err(StoreError::Corrupt(format!(
            "the table {name} is there and {what}: delete it, or set another aws.table_prefix"
        )))
    };
    let has = |keys: &[KeySchemaElement], hash: &str, range: Option<&str>| {
        let named = |kind: &KeyType| keys.iter().find(|key| key.key_type() == kind).map(|key| key.attribute_name());
        named(&KeyType::Hash) == Some(hash) && named(&KeyType::Range) == range
    };
    if !has(found.key_schema(), table.hash, table.range) {
        return wrong("has other keys");
    }
    for index in table.indexes {
        let is_it =
            |made: &&aws_sdk_dynamodb::types::GlobalSecondaryIndexDescription| made.index_name() == Some(index.name);
        let Some(made) = found.global_secondary_indexes().iter().find(is_it) else {
            return wrong(&format!("lacks the index {}", index.name));
        };
        if !has(made.key_schema(), index.hash, Some(index.range)) {
            return wrong(&format!("has another index {}", index.name));
        }
    }
    Ok(())
}

/// Switches deletion by age on, unless it is: to do so twice within the hour is an error.
async fn expire(client: &Client, name: &str) -> Result<(), StoreError> {
    let step = format!("switch on deletion by age in {name}");
    let answer = client.describe_time_to_live().table_name(name).send().await.map_err(|error| failed(&step, &error))?;
    let status = answer.time_to_live_description.and_then(|described| described.time_to_live_status);
    if matches!(status, Some(TimeToLiveStatus::Enabled | TimeToLiveStatus::Enabling)) {
        return Ok(());
    }
    let on = built(TimeToLiveSpecification::builder().enabled(true).attribute_name(TTL).build())?;
    let request = client.update_time_to_live().table_name(name).time_to_live_specification(on);
    request.send().await.map_err(|error| failed(&step, &error))?;
    Ok(())
}
