//! Several items by one request: batches, of which some may be left undone, and transactions, of which all is done or nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hasher};
use std::time::{Duration, Instant};

use serde_json::value::RawValue;
use serde_json::{Value as Json, json};

use super::State;
use super::items::{Failure, Plan, answer, projection};
use super::refusal::{Answer, Refusal};
use super::requests::{
    BatchDelete, BatchGetItem, BatchKeys, BatchPut, BatchWrite, BatchWriteItem, TransactGetItems, TransactWrite,
    TransactWriteItems, What, Write,
};
use super::table::Item;
use super::value::Attributes;
use crate::support::faults::Generator;

const WRITES_MAX: usize = 25;
const READS_MAX: usize = 100;
const TRANSACTION_MAX: usize = 100;
/// Bytes of items in a BatchGetItem's answer, and in a transaction.
const BATCH_BYTES_MAX: usize = 16 << 20;
const TRANSACTION_BYTES_MAX: usize = 4 << 20;
/// How long a transaction's token is known.
const TOKEN_LIFE: Duration = Duration::from_secs(600);

fn duplicates() -> Refusal {
    Refusal::validation("Provided list of item keys contains duplicates")
}

impl State {
    pub fn batch_write(&mut self, request: &BatchWriteItem, generator: &mut Generator) -> Answer<Vec<u8>> {
        let count: usize = request.request_items.values().map(Vec::len).sum();
        if count > WRITES_MAX {
            return Err(Refusal::validation("Too many items requested for the BatchWriteItem call"));
        }
        if count == 0 {
            return Err(Refusal::validation("The batch write request list for a table cannot be null or empty"));
        }
        let mut keys = BTreeSet::new();
        let mut plans: Vec<(Plan, &RawValue)> = Vec::new();
        for (table, entries) in &request.request_items {
            for entry in entries {
                let parsed: BatchWrite = super::decode(entry.get().as_bytes())?;
                let what = match parsed {
                    BatchWrite { put_request: Some(BatchPut { item }), delete_request: None } => What::Put(item),
                    BatchWrite { put_request: None, delete_request: Some(BatchDelete { key }) } => What::Delete(key),
                    _ => {
                        return Err(Refusal::validation(
                            "Supplied AttributeValue has neither or both of PutRequest and DeleteRequest",
                        ));
                    }
                };
                let plan = self.plan(&Write::plain(table, what)).map_err(only_refusal)?;
                if !keys.insert((table.clone(), plan.key.clone())) {
                    return Err(duplicates());
                }
                plans.push((plan, entry));
            }
        }
        let mut unprocessed: BTreeMap<String, Vec<&RawValue>> = BTreeMap::new();
        for (plan, entry) in &plans {
            if generator.leaves_entry() {
                unprocessed.entry(plan.table.clone()).or_default().push(entry);
            } else {
                self.carry_out(plan)?;
            }
        }
        answer(&BTreeMap::from([("UnprocessedItems", unprocessed)]))
    }

    pub fn batch_get(&self, request: &BatchGetItem, generator: &mut Generator) -> Answer<Vec<u8>> {
        let count: usize = request.request_items.values().map(|keys| keys.keys.len()).sum();
        if count > READS_MAX {
            return Err(Refusal::validation("Too many items requested for the BatchGetItem call"));
        }
        let mut responses = BTreeMap::new();
        let mut unprocessed = BTreeMap::new();
        let mut bytes = 0;
        for (name, BatchKeys { keys, consistent_read, projection_expression, expression_attribute_names }) in
            &request.request_items
        {
            let table = self.table(name)?;
            let paths = projection(projection_expression.as_deref(), expression_attribute_names)?;
            if keys.is_empty() {
                return Err(Refusal::validation("The list of keys in RequestItems for BatchGetItem is required"));
            }
            let (mut found, mut left) = (Vec::new(), Vec::new());
            let mut seen = BTreeSet::new();
            for key in keys {
                let primary = table.schema.key_of_request(key)?;
                let item = table.get(&primary);
                if !seen.insert(primary) {
                    return Err(duplicates());
                }
                let size = item.map_or(0, |item| item.size);
                if bytes + size > BATCH_BYTES_MAX || generator.leaves_entry() {
                    left.push(key);
                } else if let Some(item) = item {
                    bytes += size;
                    found.push(
                        paths
                            .as_ref()
                            .map_or_else(|| json!(item.attributes), |paths| json!(paths.project(&item.attributes))),
                    );
                }
            }
            responses.insert(name, found);
            if !left.is_empty() {
                let mut again = json!({ "Keys": left, "ConsistentRead": consistent_read });
                if let Some(text) = projection_expression {
                    again["ProjectionExpression"] = json!(text);
                    again["ExpressionAttributeNames"] = json!(expression_attribute_names);
                }
                unprocessed.insert(name, again);
            }
        }
        answer(&json!({ "Responses": responses, "UnprocessedKeys": unprocessed }))
    }

    pub fn transact_write(&mut self, request: &TransactWriteItems, generator: &mut Generator) -> Answer<Vec<u8>> {
        let done = answer(&json!({}));
        if !(1..=TRANSACTION_MAX).contains(&request.transact_items.len()) {
            return Err(Refusal::validation(
                "Member must have length less than or equal to 100, and greater than or equal to 1",
            ));
        }
        self.tokens.retain(|_, (at, _)| at.elapsed() < TOKEN_LIFE);
        let print = fingerprint(&request.transact_items);
        if let Some(token) = &request.client_request_token
            && let Some((_, known)) = self.tokens.get(token)
        {
            let message = "The request uses the same client token as a previous, but non-identical request";
            return if *known == print {
                done
            } else {
                Err(Refusal::new("IdempotentParameterMismatchException", message))
            };
        }
        let writes: Vec<Write> = request.transact_items.iter().map(Write::of_transaction).collect::<Answer<_>>()?;
        if generator.cancels() {
            let conflict = json!({ "Code": "TransactionConflict", "Message": "Transaction is ongoing for the item" });
            let others = writes.iter().skip(1).map(|_| json!({ "Code": "None" }));
            return Err(cancelled(std::iter::once(conflict).chain(others).collect()));
        }
        let mut keys = BTreeSet::new();
        let (mut plans, mut reasons) = (Vec::new(), Vec::new());
        let (mut is_cancelled, mut bytes) = (false, 0);
        for write in &writes {
            let table = self.table(&write.table)?;
            let key = match &write.what {
                What::Put(item) => table.schema.key_of_item(item),
                What::Update(key, _) | What::Delete(key) | What::Check(key) => table.schema.key_of_request(key),
            }?;
            if !keys.insert((&write.table, key)) {
                return Err(Refusal::validation("Transaction request cannot include multiple operations on one item"));
            }
            let reason = match self.plan(write) {
                Err(Failure::Request(refusal)) => return Err(refusal),
                Err(Failure::Condition(item)) => failed_condition(item.as_deref()),
                Err(Failure::Value(refusal)) => json!({ "Code": "ValidationError", "Message": refusal.message }),
                Ok(plan) => {
                    bytes += plan.after.iter().flatten().chain(&plan.before).map(|item| item.size).max().unwrap_or(0);
                    plans.push(plan);
                    reasons.push(json!({ "Code": "None" }));
                    continue;
                }
            };
            is_cancelled = true;
            reasons.push(reason);
        }
        if bytes > TRANSACTION_BYTES_MAX {
            return Err(Refusal::validation("Collection size limit exceeded: the items of a transaction exceed 4 MB"));
        }
        if is_cancelled {
            return Err(cancelled(reasons));
        }
        plans.iter().try_for_each(|plan| self.carry_out(plan))?;
        if let Some(token) = &request.client_request_token {
            self.tokens.insert(token.clone(), (Instant::now(), print));
        }
        done
    }

    pub fn transact_get(&self, request: &TransactGetItems) -> Answer<Vec<u8>> {
        if !(1..=TRANSACTION_MAX).contains(&request.transact_items.len()) {
            return Err(Refusal::validation(
                "Member must have length less than or equal to 100, and greater than or equal to 1",
            ));
        }
        let responses: Answer<Vec<Json>> = request
            .transact_items
            .iter()
            .map(|item| {
                let get = item.get.as_ref().ok_or_else(|| Refusal::validation("A Get is missing"))?;
                let table = self.table(&get.table_name)?;
                let paths = projection(get.projection_expression.as_deref(), &get.expression_attribute_names)?;
                Ok(match (table.get(&table.schema.key_of_request(&get.key)?), paths) {
                    (None, _) => json!({}),
                    (Some(item), None) => json!({ "Item": item.attributes }),
                    (Some(item), Some(paths)) => json!({ "Item": paths.project(&item.attributes) }),
                })
            })
            .collect();
        answer(&json!({ "Responses": responses? }))
    }
}

/// Of a write without condition.
fn only_refusal(failure: Failure) -> Refusal {
    match failure {
        Failure::Request(refusal) | Failure::Value(refusal) => refusal,
        Failure::Condition(_) => Refusal::internal(),
    }
}

fn failed_condition(item: Option<&Item>) -> Json {
    let mut reason = json!({ "Code": "ConditionalCheckFailed", "Message": "The conditional request failed" });
    if let Some(item) = item {
        reason["Item"] = json!(item.attributes);
    }
    reason
}

fn cancelled(reasons: Vec<Json>) -> Refusal {
    let codes: Vec<&str> = reasons.iter().filter_map(|reason| reason["Code"].as_str()).collect();
    let message = "Transaction cancelled, please refer cancellation reasons for specific reasons";
    let message = format!("{message} [{}]", codes.join(", "));
    Refusal {
        with: Some(("CancellationReasons", json!(reasons))),
        ..Refusal::new("TransactionCanceledException", message)
    }
}

/// Equal for requests that ask for the same, in whatever order their maps were written.
fn fingerprint(items: &[TransactWrite]) -> u64 {
    struct Hashing(DefaultHasher);
    impl std::fmt::Write for Hashing {
        fn write_str(&mut self, text: &str) -> std::fmt::Result {
            self.0.write(text.as_bytes());
            Ok(())
        }
    }
    let mut hashing = Hashing(DefaultHasher::new());
    let _ = write!(hashing, "{items:?}");
    hashing.0.finish()
}

impl Write {
    fn plain(table: &str, what: What) -> Self {
        Self {
            table: table.to_owned(),
            what,
            condition: None,
            names: BTreeMap::new(),
            values: Attributes::new(),
            wanted: None,
            wanted_on_failure: None,
        }
    }

    fn of_transaction(item: &TransactWrite) -> Answer<Self> {
        match item.clone() {
            TransactWrite { put: Some(put), update: None, delete: None, condition_check: None } => Ok(put.into()),
            TransactWrite { put: None, update: Some(update), delete: None, condition_check: None } => Ok(update.into()),
            TransactWrite { put: None, update: None, delete: Some(delete), condition_check: None } => Ok(delete.into()),
            TransactWrite { put: None, update: None, delete: None, condition_check: Some(check) } => Ok(check.into()),
            _ => Err(Refusal::validation("TransactItems can only contain one of Check, Put, Update or Delete")),
        }
    }
}
