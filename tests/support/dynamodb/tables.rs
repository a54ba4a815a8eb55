//! Tables made, described and dropped; which attribute holds an item's expiry.

use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};

use super::State;
use super::key::{KeyAttribute, KeyElement, Schema};
use super::refusal::{Answer, Refusal};
use super::requests::{CreateTable, ListTables, NewIndex, TableOnly, UpdateTimeToLive};
use super::table::{Index, Partitions, Projection, Rows, Table};

/// Of one table.
const GLOBAL_INDEXES_MAX: usize = 20;
const LOCAL_INDEXES_MAX: usize = 5;
const TABLES_LISTED_MAX: usize = 100;

impl CreateTable {
    fn schema(&self, elements: &[KeyElement]) -> Answer<Schema> {
        let attribute = |element: &KeyElement| {
            let name = &element.attribute_name;
            let found = self.attribute_definitions.iter().find(|definition| definition.attribute_name == *name);
            let kind = found
                .map(|definition| definition.attribute_type.clone())
                .filter(|kind| ["S", "N", "B"].contains(&&**kind));
            let message = "Some index key attributes are not defined in AttributeDefinitions. Keys";
            let kind = kind.ok_or_else(|| Refusal::invalid_value(format!("{message}: [{name}]")))?;
            Ok(KeyAttribute { name: name.clone(), kind })
        };
        match elements {
            [hash] if hash.key_type == "HASH" => Ok(Schema { partition: attribute(hash)?, sort: None }),
            [hash, range] if hash.key_type == "HASH" && range.key_type == "RANGE" => {
                Ok(Schema { partition: attribute(hash)?, sort: Some(attribute(range)?) })
            }
            _ => Err(Refusal::validation(
                "Invalid KeySchema: a HASH key element first, then at most one RANGE key element",
            )),
        }
    }

    fn index(&self, new: &NewIndex, table: &Schema, global: bool) -> Answer<Index> {
        let schema = self.schema(&new.key_schema)?;
        if !global && (schema.partition.name != table.partition.name || schema.sort.is_none()) {
            let message = "Index KeySchema does not have the same leading hash key as table KeySchema for index";
            return Err(Refusal::invalid_value(format!("{message}: {}", new.index_name)));
        }
        let projection =
            new.projection.clone().ok_or_else(|| Refusal::invalid_value("Unknown ProjectionType: null"))?;
        let keys = || schema.names().into_iter().chain(table.names()).map(str::to_owned).collect();
        let held = match (&*projection.projection_type, projection.non_key_attributes.is_empty()) {
            ("ALL", true) => None,
            ("KEYS_ONLY", true) => Some(keys()),
            ("INCLUDE", false) => {
                let mut held: std::collections::BTreeSet<String> = keys();
                held.extend(projection.non_key_attributes.iter().cloned());
                Some(held)
            }
            (kind, _) => {
                let message = "ProjectionType and NonKeyAttributes do not go together: ProjectionType";
                return Err(Refusal::invalid_value(format!("{message} is {kind}")));
            }
        };
        Ok(Index { name: new.index_name.clone(), global, schema, projection, held, rows: Partitions::new() })
    }
}

impl State {
    pub fn create_table(&mut self, request: &CreateTable, creating: Duration) -> Answer<Json> {
        let name = &request.table_name;
        let valid = |name: &str| {
            (3..=255).contains(&name.len())
                && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte))
        };
        let indexes = || request.global_secondary_indexes.iter().chain(&request.local_secondary_indexes);
        if let Some(wrong) =
            std::iter::once(name).chain(indexes().map(|index| &index.index_name)).find(|name| !valid(name))
        {
            let message =
                "Value at 'tableName' failed to satisfy constraint: Member must have 3 to 255 of [a-zA-Z0-9_.-]";
            return Err(Refusal::validation(format!("{message}: {wrong}")));
        }
        if self.tables.contains_key(name) {
            return Err(Refusal::new("ResourceInUseException", format!("Table already exists: {name}")));
        }
        if request.billing_mode.as_deref() != Some("PAY_PER_REQUEST") && request.provisioned_throughput.is_none() {
            return Err(Refusal::invalid_value(
                "ReadCapacityUnits and WriteCapacityUnits must both be specified when BillingMode is PROVISIONED",
            ));
        }
        if request.global_secondary_indexes.len() > GLOBAL_INDEXES_MAX
            || request.local_secondary_indexes.len() > LOCAL_INDEXES_MAX
        {
            return Err(Refusal::invalid_value("Number of indexes exceeds the limit"));
        }
        let schema = request.schema(&request.key_schema)?;
        let mut built: Vec<Index> = Vec::new();
        for (list, global) in [(&request.global_secondary_indexes, true), (&request.local_secondary_indexes, false)] {
            for new in list {
                if built.iter().any(|index| index.name == new.index_name) {
                    return Err(Refusal::invalid_value(format!("Duplicate index name: {}", new.index_name)));
                }
                built.push(request.index(new, &schema, global)?);
            }
        }
        let keys: Vec<&str> =
            schema.names().into_iter().chain(built.iter().flat_map(|index| index.schema.names())).collect();
        if let Some(unused) = request.attribute_definitions.iter().find(|d| !keys.contains(&d.attribute_name.as_str()))
        {
            let message = "Number of attributes in KeySchema does not exactly match number of attributes defined in AttributeDefinitions";
            return Err(Refusal::invalid_value(format!("{message}: {}", unused.attribute_name)));
        }
        self.next_id += 1;
        let mut table = Table::new(name.clone(), self.next_id, schema, built, now_s());
        table.active_at = Instant::now() + creating;
        table.declared = request
            .attribute_definitions
            .iter()
            .map(|d| (d.attribute_name.clone(), d.attribute_type.clone()))
            .collect();
        let description = table.description();
        self.tables.insert(name.clone(), table);
        Ok(json!({ "TableDescription": description }))
    }

    /// A table that can be described.
    fn known(&self, name: &str) -> Answer<&Table> {
        let message = format!("Requested resource not found: Table: {name} not found");
        self.tables.get(name).ok_or_else(|| Refusal::new("ResourceNotFoundException", message))
    }

    pub fn describe_table(&self, request: &TableOnly) -> Answer<Json> {
        Ok(json!({ "Table": self.known(&request.table_name)?.description() }))
    }

    pub fn delete_table(&mut self, request: &TableOnly) -> Answer<Json> {
        let table = self.known(&request.table_name)?;
        if !table.is_active() {
            let message =
                format!("Attempt to change a resource which is still in use: Table is being created: {}", table.name);
            return Err(Refusal::new("ResourceInUseException", message));
        }
        let mut description = table.description();
        description["TableStatus"] = json!("DELETING");
        self.tables.remove(&request.table_name);
        Ok(json!({ "TableDescription": description }))
    }

    pub fn list_tables(&self, request: &ListTables) -> Answer<Json> {
        let after = request.exclusive_start_table_name.as_deref().unwrap_or_default();
        let limit = request.limit.unwrap_or(TABLES_LISTED_MAX);
        if !(1..=TABLES_LISTED_MAX).contains(&limit) {
            return Err(Refusal::validation(
                "Value at 'limit' failed to satisfy constraint: Member must be between 1 and 100",
            ));
        }
        let mut rest = self.tables.keys().filter(|name| name.as_str() > after);
        let names: Vec<&String> = rest.by_ref().take(limit).collect();
        Ok(match (names.last(), rest.next()) {
            (Some(last), Some(_)) => json!({ "TableNames": names, "LastEvaluatedTableName": last }),
            _ => json!({ "TableNames": names }),
        })
    }

    pub fn update_expiry(&mut self, request: &UpdateTimeToLive) -> Answer<Json> {
        self.known(&request.table_name)?;
        let table = self.table_mut(&request.table_name)?;
        let Some(wanted) = &request.time_to_live_specification else {
            return Err(Refusal::validation("TimeToLiveSpecification must not be null"));
        };
        if wanted.attribute_name.is_empty() {
            return Err(Refusal::validation("TimeToLiveSpecification.AttributeName must not be empty"));
        }
        match (&table.expiry, wanted.enabled) {
            (Some(_), true) => return Err(Refusal::validation("TimeToLive is already enabled")),
            (None, false) => return Err(Refusal::validation("TimeToLive is already disabled")),
            (Some(present), false) if *present != wanted.attribute_name => {
                return Err(Refusal::validation(format!(
                    "TimeToLive is active on a different AttributeName: current AttributeName is {present}"
                )));
            }
            (_, enabled) => table.expiry = enabled.then(|| wanted.attribute_name.clone()),
        }
        let specification = json!({ "AttributeName": wanted.attribute_name, "Enabled": wanted.enabled });
        Ok(json!({ "TimeToLiveSpecification": specification }))
    }

    pub fn describe_expiry(&self, request: &TableOnly) -> Answer<Json> {
        let description = match &self.known(&request.table_name)?.expiry {
            Some(attribute) => json!({ "TimeToLiveStatus": "ENABLED", "AttributeName": attribute }),
            None => json!({ "TimeToLiveStatus": "DISABLED" }),
        };
        Ok(json!({ "TimeToLiveDescription": description }))
    }

    /// A table that can be used.
    pub fn table(&self, name: &str) -> Answer<&Table> {
        self.tables.get(name).filter(|table| table.is_active()).ok_or_else(Refusal::no_table)
    }

    pub fn table_mut(&mut self, name: &str) -> Answer<&mut Table> {
        self.tables.get_mut(name).filter(|table| table.is_active()).ok_or_else(Refusal::no_table)
    }
}

/// Seconds since 1970.
pub fn now_s() -> f64 {
    std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_secs_f64()
}

impl Schema {
    fn description(&self) -> Json {
        let elements = self.attributes().zip(["HASH", "RANGE"]);
        elements.map(|(attribute, kind)| json!({ "AttributeName": attribute.name, "KeyType": kind })).collect()
    }
}

impl Table {
    fn is_active(&self) -> bool {
        Instant::now() >= self.active_at
    }

    fn status(&self) -> &'static str {
        if self.is_active() { "ACTIVE" } else { "CREATING" }
    }

    fn description(&self) -> Json {
        let arn = format!("arn:aws:dynamodb:us-east-1:000000000000:table/{}", self.name);
        let declared = self.declared.iter().map(|(name, kind)| json!({ "AttributeName": name, "AttributeType": kind }));
        let throughput = json!({ "NumberOfDecreasesToday": 0, "ReadCapacityUnits": 0, "WriteCapacityUnits": 0 });
        let mut description = json!({
            "TableName": self.name,
            "TableArn": arn,
            "TableId": format!("00000000-0000-4000-8000-{:012}", self.id),
            "TableStatus": self.status(),
            "CreationDateTime": self.created,
            "KeySchema": self.schema.description(),
            "AttributeDefinitions": declared.collect::<Json>(),
            "ItemCount": self.count,
            "TableSizeBytes": size(&self.rows),
            "BillingModeSummary": { "BillingMode": "PAY_PER_REQUEST" },
            "ProvisionedThroughput": throughput,
            "DeletionProtectionEnabled": false,
        });
        for (member, global) in [("GlobalSecondaryIndexes", true), ("LocalSecondaryIndexes", false)] {
            let indexes = self.indexes.iter().filter(|index| index.global == global).map(|index| {
                let Projection { projection_type, non_key_attributes } = &index.projection;
                let mut projection = json!({ "ProjectionType": projection_type });
                if !non_key_attributes.is_empty() {
                    projection["NonKeyAttributes"] = json!(non_key_attributes);
                }
                let mut described = json!({
                    "IndexName": index.name,
                    "IndexArn": format!("{arn}/index/{}", index.name),
                    "KeySchema": index.schema.description(),
                    "Projection": projection,
                    "ItemCount": index.rows.values().map(Rows::len).sum::<usize>(),
                    "IndexSizeBytes": size(&index.rows),
                });
                if global {
                    described["IndexStatus"] = json!(self.status());
                    described["ProvisionedThroughput"] = throughput.clone();
                }
                described
            });
            let indexes: Vec<Json> = indexes.collect();
            if !indexes.is_empty() {
                description[member] = json!(indexes);
            }
        }
        description
    }
}

fn size(rows: &Partitions) -> usize {
    rows.values().flat_map(Rows::values).map(|item| item.size).sum()
}
