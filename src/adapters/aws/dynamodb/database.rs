//! The handful of requests that the store is made of, each with its errors in the ports' words.

use std::collections::HashMap;
use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::error::SdkError;
use aws_sdk_dynamodb::operation::delete_item::DeleteItemError;
use aws_sdk_dynamodb::operation::put_item::PutItemError;
use aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError;
use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::types::{
    AttributeValue, KeysAndAttributes, PutRequest, ReturnValue, ReturnValuesOnConditionCheckFailure, Select,
    TransactWriteItem, WriteRequest,
};
use futures_util::{StreamExt, TryStreamExt, stream};

use crate::ports::StoreError;

use super::errors::failed;
use super::item::{Attributes, Item, text};
use super::tables::{Index, Table};

/// DynamoDB's own bounds of one request.
const KEYS_IN_A_READ: usize = 100;
const ITEMS_IN_A_WRITE: usize = 25;
/// Tries of what a batch left unprocessed and of a transaction that met another: about two seconds together.
const TRIES_MAX: u32 = 8;
const PAUSE: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_millis(500);
/// Batches of one caller under way at once.
pub(super) const AT_ONCE: usize = 8;

/// A condition, or an update, in DynamoDB's language: `#word` stands for the attribute of that name, `:word` for a value.
#[derive(Clone, Debug)]
pub(super) struct Expression {
    pub text: &'static str,
    pub values: Vec<(&'static str, AttributeValue)>,
}

impl Expression {
    pub fn new<const N: usize>(text: &'static str, values: [(&'static str, AttributeValue); N]) -> Self {
        Self { text, values: values.into() }
    }

    pub fn values(&self) -> Option<Item> {
        values_of([self])
    }

    pub fn names(&self) -> Option<HashMap<String, String>> {
        names_of([self.text])
    }
}

/// Every `#word` of these texts, as the attribute `word`. So no name can meet one of DynamoDB's reserved words.
pub(super) fn names_of<const N: usize>(texts: [&str; N]) -> Option<HashMap<String, String>> {
    let words = texts.into_iter().flat_map(|text| {
        text.split('#').skip(1).map(|rest| {
            let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
            &rest[..end]
        })
    });
    let names: HashMap<_, _> = words.map(|word| (format!("#{word}"), word.to_owned())).collect();
    (!names.is_empty()).then_some(names)
}

pub(super) fn values_of<const N: usize>(expressions: [&Expression; N]) -> Option<Item> {
    let all = expressions.into_iter().flat_map(|one| &one.values);
    let values: Item = all.map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
    (!values.is_empty()).then_some(values)
}

/// The answer to a conditional change.
#[derive(Debug)]
pub(super) enum Changed {
    Done,
    /// The condition did not hold: the item as it is, if there is one.
    Refused(Option<Item>),
}

/// Some items in order of a range key.
pub(super) struct Query<'a> {
    pub table: &'a Table,
    pub index: Option<&'a Index>,
    pub hash: String,
    /// Lowest and highest, both included.
    pub between: Option<(String, String)>,
    pub newest_first: bool,
    /// Items of one answer.
    pub limit: usize,
    /// Where the last answer ended.
    pub from: Option<Item>,
    /// Only how many there are.
    pub count: bool,
}

impl<'a> Query<'a> {
    pub fn new(table: &'a Table, hash: impl Into<String>) -> Self {
        Self {
            table,
            index: None,
            hash: hash.into(),
            between: None,
            newest_first: false,
            limit: 1000,
            from: None,
            count: false,
        }
    }
}

/// A part of a query's answer.
pub(super) struct Answer {
    pub items: Vec<Item>,
    pub count: u64,
    /// Where the next part begins.
    pub next: Option<Item>,
}

pub(super) struct Database {
    client: Client,
    prefix: String,
}

impl Database {
    pub fn new(client: Client, prefix: &str) -> Self {
        Self { client, prefix: prefix.to_owned() }
    }

    pub fn name(&self, table: &Table) -> String {
        table.full_name(&self.prefix)
    }

    /// As it is now: what was answered before this was asked is seen.
    pub async fn get(&self, table: &Table, key: Item) -> Result<Option<Item>, StoreError> {
        let request = self.client.get_item().table_name(self.name(table)).set_key(Some(key)).consistent_read(true);
        let answer = request.send().await.map_err(|error| failed("read an item", &error))?;
        Ok(answer.item)
    }

    pub async fn put(&self, table: &Table, item: Item, on: Option<Expression>) -> Result<Changed, StoreError> {
        let request = self
            .client
            .put_item()
            .table_name(self.name(table))
            .set_item(Some(item))
            .set_condition_expression(on.as_ref().map(|on| on.text.to_owned()))
            .set_expression_attribute_names(on.as_ref().and_then(Expression::names))
            .set_expression_attribute_values(on.as_ref().and_then(Expression::values))
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        match request.send().await {
            Ok(_) => Ok(Changed::Done),
            Err(SdkError::ServiceError(error)) if error.err().is_conditional_check_failed_exception() => {
                let PutItemError::ConditionalCheckFailedException(refused) = error.into_err() else {
                    return Ok(Changed::Refused(None));
                };
                Ok(Changed::Refused(refused.item))
            }
            Err(error) => Err(failed("write an item", &error)),
        }
    }

    /// The item after the change, or `None` where the condition refused it.
    pub async fn update(
        &self,
        table: &Table,
        key: Item,
        change: Expression,
        on: Expression,
    ) -> Result<Option<Item>, StoreError> {
        let request = self
            .client
            .update_item()
            .table_name(self.name(table))
            .set_key(Some(key))
            .update_expression(change.text)
            .condition_expression(on.text)
            .set_expression_attribute_names(names_of([change.text, on.text]))
            .set_expression_attribute_values(values_of([&change, &on]))
            .return_values(ReturnValue::AllNew);
        match request.send().await {
            Ok(answer) => Ok(Some(answer.attributes.unwrap_or_default())),
            Err(SdkError::ServiceError(error))
                if matches!(error.err(), UpdateItemError::ConditionalCheckFailedException(_)) =>
            {
                Ok(None)
            }
            Err(error) => Err(failed("change an item", &error)),
        }
    }

    /// `false` if it is not there.
    pub async fn delete(&self, table: &Table, key: Item) -> Result<bool, StoreError> {
        let request = self
            .client
            .delete_item()
            .table_name(self.name(table))
            .set_key(Some(key))
            .condition_expression("attribute_exists(#it)")
            .expression_attribute_names("#it", table.hash);
        match request.send().await {
            Ok(_) => Ok(true),
            Err(SdkError::ServiceError(error))
                if matches!(error.err(), DeleteItemError::ConditionalCheckFailedException(_)) =>
            {
                Ok(false)
            }
            Err(error) => Err(failed("delete an item", &error)),
        }
    }

    /// All or none. The inner error: each part's item where its condition refused it, and `None` where it did not.
    ///
    /// A transaction that meets another on the same item is tried again. The SDK sends the same token with each try of one request,
    /// so that one whose answer was lost is not made twice.
    pub async fn transact(&self, parts: Vec<TransactWriteItem>) -> Result<Result<(), Vec<Option<Item>>>, StoreError> {
        let mut pause = Pause::new();
        loop {
            let request = self.client.transact_write_items().set_transact_items(Some(parts.clone()));
            let error = match request.send().await {
                Ok(_) => return Ok(Ok(())),
                Err(error) => error,
            };
            if let Some(TransactWriteItemsError::TransactionCanceledException(cancelled)) = error.as_service_error() {
                let reasons = cancelled.cancellation_reasons();
                let refused = |code: Option<&str>| code == Some("ConditionalCheckFailed");
                if reasons.iter().any(|reason| refused(reason.code())) {
                    let items = reasons
                        .iter()
                        .map(|reason| refused(reason.code()).then(|| reason.item.clone().unwrap_or_default()));
                    return Ok(Err(items.collect()));
                }
                let met = |code: &str| code == "TransactionConflict" || code == "ThrottlingError";
                let passing = reasons.iter().filter_map(|reason| reason.code()).any(met);
                if passing && pause.again().await {
                    continue;
                }
            }
            return Err(failed("make a transaction", &error));
        }
    }

    /// Those that are there, in no order.
    pub async fn get_all(&self, table: &Table, keys: Vec<Item>) -> Result<Vec<Item>, StoreError> {
        let batches: Vec<Vec<Item>> = keys.chunks(KEYS_IN_A_READ).map(<[Item]>::to_vec).collect();
        let answers: Vec<Vec<Item>> = stream::iter(batches.into_iter().map(|keys| self.get_batch(table, keys)))
            .buffer_unordered(AT_ONCE)
            .try_collect()
            .await?;
        Ok(answers.into_iter().flatten().collect())
    }

    /// What an answer left out, because it grew too large or the table is busy, is asked for again.
    async fn get_batch(&self, table: &Table, mut keys: Vec<Item>) -> Result<Vec<Item>, StoreError> {
        let (name, mut found, mut pause) = (self.name(table), Vec::new(), Pause::new());
        while !keys.is_empty() {
            let asked = keys.len();
            let wanted = KeysAndAttributes::builder().set_keys(Some(keys)).build();
            let wanted = wanted.map_err(|error| StoreError::Unavailable(format!("read items: {error}")))?;
            let answer = self.client.batch_get_item().request_items(&name, wanted).send().await;
            let answer = answer.map_err(|error| failed("read items", &error))?;
            found.extend(answer.responses.and_then(|mut all| all.remove(&name)).unwrap_or_default());
            keys =
                answer.unprocessed_keys.and_then(|mut all| all.remove(&name)).map(|rest| rest.keys).unwrap_or_default();
            // An answer that holds something is progress; one that holds nothing says that the table is busy.
            if keys.len() == asked && !pause.again().await {
                return Err(StoreError::Unavailable("read items: the table is busy".to_owned()));
            }
        }
        Ok(found)
    }

    /// Each in the place of an earlier one. Two may not be of the same key.
    pub async fn put_all(&self, table: &Table, items: Vec<Item>) -> Result<(), StoreError> {
        let name = self.name(table);
        let requests = items.into_iter().map(|item| {
            let put = PutRequest::builder().set_item(Some(item)).build();
            put.map(|put| WriteRequest::builder().put_request(put).build())
        });
        let requests: Vec<WriteRequest> = requests
            .collect::<Result<_, _>>()
            .map_err(|error| StoreError::Unavailable(format!("write items: {error}")))?;
        let batches: Vec<_> = requests.chunks(ITEMS_IN_A_WRITE).map(<[WriteRequest]>::to_vec).collect();
        stream::iter(batches.into_iter().map(|batch| self.put_batch(&name, batch)))
            .buffer_unordered(AT_ONCE)
            .try_collect()
            .await
    }

    async fn put_batch(&self, name: &str, mut batch: Vec<WriteRequest>) -> Result<(), StoreError> {
        let mut pause = Pause::new();
        loop {
            let answer = self.client.batch_write_item().request_items(name, batch).send().await;
            let answer = answer.map_err(|error| failed("write items", &error))?;
            batch = answer.unprocessed_items.and_then(|mut all| all.remove(name)).unwrap_or_default();
            if batch.is_empty() {
                return Ok(());
            }
            if !pause.again().await {
                return Err(StoreError::Unavailable("write items: the table is busy".to_owned()));
            }
        }
    }

    /// One part of an answer. An index may lag behind its table by some milliseconds; a table does not.
    pub async fn query(&self, query: Query<'_>) -> Result<Answer, StoreError> {
        let (hash, range) = match query.index {
            Some(index) => (index.hash, Some(index.range)),
            None => (query.table.hash, query.table.range),
        };
        let mut condition = "#hash = :hash".to_owned();
        let mut request = self
            .client
            .query()
            .table_name(self.name(query.table))
            .set_index_name(query.index.map(|index| index.name.to_owned()))
            .expression_attribute_names("#hash", hash)
            .expression_attribute_values(":hash", text(query.hash))
            .scan_index_forward(!query.newest_first)
            .limit(i32::try_from(query.limit).unwrap_or(i32::MAX))
            .set_exclusive_start_key(query.from)
            .set_select(query.count.then_some(Select::Count))
            .consistent_read(query.index.is_none());
        if let (Some((low, high)), Some(range)) = (query.between, range) {
            condition.push_str(" AND #range BETWEEN :low AND :high");
            request = request
                .expression_attribute_names("#range", range)
                .expression_attribute_values(":low", text(low))
                .expression_attribute_values(":high", text(high));
        }
        let answer = request.key_condition_expression(condition).send().await;
        let answer = answer.map_err(|error| failed("query a table", &error))?;
        Ok(Answer {
            count: u64::try_from(answer.count).unwrap_or_default(),
            items: answer.items.unwrap_or_default(),
            next: answer.last_evaluated_key.filter(|key| !key.is_empty()),
        })
    }

    /// Every item of one partition that is in range: for partitions that are bounded.
    pub async fn query_all(&self, table: &Table, hash: &str) -> Result<Vec<Item>, StoreError> {
        let (mut found, mut from) = (Vec::new(), None);
        loop {
            let answer = self.query(Query { from, ..Query::new(table, hash) }).await?;
            found.extend(answer.items);
            from = answer.next;
            if from.is_none() {
                return Ok(found);
            }
        }
    }
}

/// A key of one attribute.
pub(super) fn key_of(table: &Table, hash: impl Into<String>) -> Item {
    Item::from([(table.hash.to_owned(), text(hash))])
}

/// A key of two.
pub(super) fn key_in(table: &Table, hash: impl Into<String>, range: impl Into<String>) -> Item {
    let mut key = key_of(table, hash);
    key.insert(table.range.unwrap_or_default().to_owned(), text(range));
    key
}

/// By the text of an attribute.
pub(super) fn by_text(items: Vec<Item>, name: &str) -> HashMap<String, Item> {
    items.into_iter().filter_map(|item| Some((item.maybe_text(name)?.to_owned(), item))).collect()
}

/// Waits that grow, up to their number.
struct Pause {
    tries: u32,
}

impl Pause {
    fn new() -> Self {
        Self { tries: 0 }
    }

    /// `false`: it was tried often enough.
    async fn again(&mut self) -> bool {
        self.tries += 1;
        if self.tries >= TRIES_MAX {
            return false;
        }
        let most = (PAUSE * 2_u32.pow(self.tries)).min(PAUSE_MAX);
        // Those who met must not meet again: somewhere between half of it and all.
        let share = uuid::Uuid::new_v4().as_bytes()[0];
        tokio::time::sleep(most / 2 + most * u32::from(share) / 512).await;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_in_an_expression_is_given() {
        let names =
            names_of(["#status = :a AND (#attempt <= :b OR attribute_exists(#x_1))", "SET #status = :c"]).unwrap();
        let mut names: Vec<_> = names.into_iter().collect();
        names.sort();
        let named = |name: &str| (format!("#{name}"), name.to_owned());
        assert_eq!(names, [named("attempt"), named("status"), named("x_1")]);
        assert_eq!(names_of(["attribute_exists(pk)"]), None);
    }
}
