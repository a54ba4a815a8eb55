//! Requests as they arrive. A member that is not named here is refused, so that nobody relies on what is not done.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value as Json;
use serde_json::value::RawValue;

use super::key::KeyElement;
use super::refusal::Answer;
use super::table::Projection;
use super::tree::Placeholders;
use super::value::Attributes;

pub type Names = BTreeMap<String, String>;

/// Declares a request: every member may be missing unless its type says otherwise.
macro_rules! request {
    ($(#[$meta:meta])* $name:ident { $($(#[$note:meta])* $field:ident: $type:ty),* $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Debug, Deserialize)]
        #[serde(rename_all = "PascalCase", deny_unknown_fields)]
        #[allow(dead_code, reason = "some members are accepted and change nothing here")]
        pub struct $name { $($(#[$note])* #[serde(default)] pub $field: $type),* }
    };
}

request!(CreateTable {
    table_name: String,
    attribute_definitions: Vec<Definition>,
    key_schema: Vec<KeyElement>,
    global_secondary_indexes: Vec<NewIndex>,
    local_secondary_indexes: Vec<NewIndex>,
    billing_mode: Option<String>,
    provisioned_throughput: Option<Json>,
    table_class: Option<String>,
    tags: Option<Json>,
    #[serde(rename = "SSESpecification")]
    encryption: Option<Json>,
    deletion_protection_enabled: Option<bool>,
    stream_specification: Option<Json>,
});
request!(Definition { attribute_name: String, attribute_type: String });
request!(NewIndex {
    index_name: String,
    key_schema: Vec<KeyElement>,
    projection: Option<Projection>,
    provisioned_throughput: Option<Json>,
});
request!(TableOnly { table_name: String });
request!(ListTables { limit: Option<usize>, exclusive_start_table_name: Option<String> });
request!(UpdateTimeToLive { table_name: String, time_to_live_specification: Option<TimeToLive> });
request!(TimeToLive { attribute_name: String, enabled: bool });

request!(PutItem {
    table_name: String,
    item: Attributes,
    condition_expression: Option<String>,
    expression_attribute_names: Names,
    expression_attribute_values: Attributes,
    return_values: Option<String>,
    return_values_on_condition_check_failure: Option<String>,
    return_consumed_capacity: Option<String>,
});
request!(DeleteItem {
    table_name: String,
    key: Attributes,
    condition_expression: Option<String>,
    expression_attribute_names: Names,
    expression_attribute_values: Attributes,
    return_values: Option<String>,
    return_values_on_condition_check_failure: Option<String>,
    return_consumed_capacity: Option<String>,
});
request!(UpdateItem {
    table_name: String,
    key: Attributes,
    update_expression: Option<String>,
    condition_expression: Option<String>,
    expression_attribute_names: Names,
    expression_attribute_values: Attributes,
    return_values: Option<String>,
    return_values_on_condition_check_failure: Option<String>,
    return_consumed_capacity: Option<String>,
});
request!(ConditionCheck {
    table_name: String,
    key: Attributes,
    condition_expression: Option<String>,
    expression_attribute_names: Names,
    expression_attribute_values: Attributes,
    return_values_on_condition_check_failure: Option<String>,
});
request!(GetItem {
    table_name: String,
    key: Attributes,
    consistent_read: bool,
    projection_expression: Option<String>,
    expression_attribute_names: Names,
    return_consumed_capacity: Option<String>,
});
request!(
    /// Query and Scan.
    Read {
        table_name: String,
        index_name: Option<String>,
        key_condition_expression: Option<String>,
        filter_expression: Option<String>,
        projection_expression: Option<String>,
        expression_attribute_names: Names,
        expression_attribute_values: Attributes,
        scan_index_forward: Option<bool>,
        limit: Option<usize>,
        exclusive_start_key: Option<Attributes>,
        select: Option<String>,
        consistent_read: bool,
        segment: Option<u64>,
        total_segments: Option<u64>,
        return_consumed_capacity: Option<String>,
    }
);
request!(BatchWriteItem { request_items: BTreeMap<String, Vec<Box<RawValue>>>, return_consumed_capacity: Option<String> });
request!(BatchWrite { put_request: Option<BatchPut>, delete_request: Option<BatchDelete> });
request!(BatchPut { item: Attributes });
request!(BatchDelete { key: Attributes });
request!(BatchGetItem { request_items: BTreeMap<String, BatchKeys>, return_consumed_capacity: Option<String> });
request!(BatchKeys {
    keys: Vec<Attributes>,
    consistent_read: bool,
    projection_expression: Option<String>,
    expression_attribute_names: Names,
});
request!(TransactWriteItems {
    transact_items: Vec<TransactWrite>,
    client_request_token: Option<String>,
    return_consumed_capacity: Option<String>,
});
request!(TransactWrite {
    put: Option<PutItem>,
    update: Option<UpdateItem>,
    delete: Option<DeleteItem>,
    condition_check: Option<ConditionCheck>,
});
request!(TransactGetItems { transact_items: Vec<TransactGet>, return_consumed_capacity: Option<String> });
request!(TransactGet { get: Option<GetItem> });

/// One write of one item, of whatever request.
#[derive(Clone, Debug)]
pub struct Write {
    pub table: String,
    pub what: What,
    pub condition: Option<String>,
    pub names: Names,
    pub values: Attributes,
    /// `ReturnValues`.
    pub wanted: Option<String>,
    /// `ReturnValuesOnConditionCheckFailure`.
    pub wanted_on_failure: Option<String>,
}

#[derive(Clone, Debug)]
pub enum What {
    Put(Attributes),
    Update(Attributes, Option<String>),
    Delete(Attributes),
    Check(Attributes),
}

/// Takes a request apart into a write.
macro_rules! write_of {
    ($request:ident, $what:expr, $wanted:expr) => {
        Self {
            table: $request.table_name,
            what: $what,
            condition: $request.condition_expression,
            names: $request.expression_attribute_names,
            values: $request.expression_attribute_values,
            wanted: $wanted,
            wanted_on_failure: $request.return_values_on_condition_check_failure,
        }
    };
}

impl From<PutItem> for Write {
    fn from(put: PutItem) -> Self {
        write_of!(put, What::Put(put.item), put.return_values)
    }
}

impl From<UpdateItem> for Write {
    fn from(update: UpdateItem) -> Self {
        write_of!(update, What::Update(update.key, update.update_expression), update.return_values)
    }
}

impl From<DeleteItem> for Write {
    fn from(delete: DeleteItem) -> Self {
        write_of!(delete, What::Delete(delete.key), delete.return_values)
    }
}

impl From<ConditionCheck> for Write {
    fn from(check: ConditionCheck) -> Self {
        write_of!(check, What::Check(check.key), None)
    }
}

impl Write {
    pub fn placeholders(&self) -> Answer<Placeholders<'_>> {
        Placeholders::new(&self.names, &self.values)
    }
}
