//! One item read or written: what a write would do is found out first, and done only then, so that a transaction can find out all.

use std::sync::Arc;

use serde::Serialize;
use serde_json::json;

use super::State;
use super::grammar::Parser;
use super::key::Key;
use super::path::PathSet;
use super::refusal::{Answer, Refusal};
use super::requests::{GetItem, Names, What, Write};
use super::table::Item;
use super::tree::{Condition, Placeholders};
use super::value::Attributes;

/// Why a write isn't done.
pub enum Failure {
    /// The request itself is wrong.
    Request(Refusal),
    /// The condition doesn't hold. With the item that stands there, if it was asked for.
    Condition(Option<Arc<Item>>),
    /// What it would make of this item is wrong.
    Value(Refusal),
}

/// What a write will do.
pub struct Plan {
    pub table: String,
    pub key: Key,
    pub before: Option<Arc<Item>>,
    /// None of a mere check; else the item, or none if it is deleted.
    pub after: Option<Option<Arc<Item>>>,
    changed: Option<PathSet>,
}

impl State {
    pub fn plan(&self, write: &Write) -> Result<Plan, Failure> {
        let request = Failure::Request;
        let table = self.table(&write.table).map_err(request)?;
        let placeholders = write.placeholders().map_err(request)?;
        let condition = match &write.condition {
            Some(text) => Some(
                Parser::new("ConditionExpression", text, &placeholders).and_then(Parser::condition).map_err(request)?,
            ),
            None if matches!(write.what, What::Check(_)) => {
                return Err(request(Refusal::validation(
                    "The ConditionExpression of a ConditionCheck must not be null",
                )));
            }
            None => None,
        };
        let update = match &write.what {
            What::Update(_, Some(text)) => {
                Some(Parser::new("UpdateExpression", text, &placeholders).and_then(Parser::update).map_err(request)?)
            }
            _ => None,
        };
        placeholders.all_used().map_err(request)?;
        let changed =
            update.as_ref().map(|update| update.changed(&table.schema.names())).transpose().map_err(request)?;
        let key = match &write.what {
            What::Put(item) => table.schema.key_of_item(item),
            What::Update(key, _) | What::Delete(key) | What::Check(key) => table.schema.key_of_request(key),
        };
        let key = key.map_err(request)?;
        let before = table.get(&key).cloned();
        if condition.is_some_and(|condition| !holds(&condition, before.as_deref())) {
            let wanted = write.wanted_on_failure.as_deref() == Some("ALL_OLD");
            return Err(Failure::Condition(before.filter(|_| wanted)));
        }
        let after = match &write.what {
            What::Put(item) => Some(Some(table.accept(item.clone(), false).map_err(Failure::Value)?.1)),
            What::Update(key, _) => {
                let attributes = before.as_ref().map_or(key, |item| &item.attributes);
                let attributes = update.map_or_else(|| Ok(attributes.clone()), |update| update.apply(attributes));
                let accepted = attributes.and_then(|attributes| table.accept(attributes, true));
                Some(Some(accepted.map_err(Failure::Value)?.1))
            }
            What::Delete(_) => Some(None),
            What::Check(_) => None,
        };
        Ok(Plan { table: write.table.clone(), key, before, after, changed })
    }

    pub fn carry_out(&mut self, plan: &Plan) -> Answer<()> {
        if let Some(after) = &plan.after {
            self.table_mut(&plan.table)?.replace(&plan.key, after.clone());
        }
        Ok(())
    }

    /// PutItem, UpdateItem, DeleteItem.
    pub fn write(&mut self, write: &Write) -> Answer<Vec<u8>> {
        let wanted = write.wanted.as_deref().unwrap_or("NONE");
        let possible = match write.what {
            What::Update(..) => ["NONE", "ALL_OLD", "ALL_NEW", "UPDATED_OLD", "UPDATED_NEW"].contains(&wanted),
            _ => ["NONE", "ALL_OLD"].contains(&wanted),
        };
        if !possible {
            return Err(Refusal::validation("Return values set to invalid value"));
        }
        let plan = self.plan(write).map_err(|failure| match failure {
            Failure::Request(refusal) | Failure::Value(refusal) => refusal,
            Failure::Condition(item) => Refusal {
                with: item.map(|item| ("Item", json!(item.attributes))),
                ..Refusal::new("ConditionalCheckFailedException", "The conditional request failed")
            },
        })?;
        self.carry_out(&plan)?;
        let before = plan.before.as_ref().map(|item| &item.attributes);
        let after = plan.after.as_ref().and_then(Option::as_ref).map(|item| &item.attributes);
        let part = |item: Option<&Attributes>| match (&plan.changed, item) {
            (Some(changed), Some(item)) => Some(changed.project(item)).filter(|part| !part.is_empty()),
            _ => None,
        };
        match wanted {
            "ALL_OLD" => answer(&Written { attributes: before }),
            "ALL_NEW" => answer(&Written { attributes: after }),
            "UPDATED_OLD" => answer(&Written { attributes: part(before).as_ref() }),
            "UPDATED_NEW" => answer(&Written { attributes: part(after).as_ref() }),
            _ => answer(&Written { attributes: None }),
        }
    }

    pub fn get(&self, get: &GetItem) -> Answer<Vec<u8>> {
        let table = self.table(&get.table_name)?;
        let projection = projection(get.projection_expression.as_deref(), &get.expression_attribute_names)?;
        let item = table.get(&table.schema.key_of_request(&get.key)?);
        let Some(item) = item else { return answer(&Got { item: None }) };
        match projection {
            Some(paths) => answer(&Got { item: Some(&paths.project(&item.attributes)) }),
            None => answer(&Got { item: Some(&item.attributes) }),
        }
    }
}

/// A missing item is one without attributes.
fn holds(condition: &Condition<'_>, item: Option<&Item>) -> bool {
    item.map_or_else(|| condition.holds(&Attributes::new()), |item| condition.holds(&item.attributes))
}

/// A ProjectionExpression of a request that has no other expression.
pub fn projection(text: Option<&str>, names: &Names) -> Answer<Option<PathSet>> {
    let values = Attributes::new();
    let placeholders = Placeholders::new(names, &values)?;
    let paths = text.map(|text| paths(text, &placeholders)).transpose()?;
    placeholders.all_used()?;
    Ok(paths)
}

pub fn paths(text: &str, placeholders: &Placeholders<'_>) -> Answer<PathSet> {
    let mut set = PathSet::default();
    for path in Parser::new("ProjectionExpression", text, placeholders)?.projection()? {
        set.add(&path, "ProjectionExpression")?;
    }
    Ok(set)
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Written<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    attributes: Option<&'a Attributes>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Got<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    item: Option<&'a Attributes>,
}

pub fn answer(body: &impl Serialize) -> Answer<Vec<u8>> {
    serde_json::to_vec(body).map_err(|_| Refusal::internal())
}
