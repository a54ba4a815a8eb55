//! Items as the tests write them.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::AttributeValue;

pub type Item = HashMap<String, AttributeValue>;

pub fn s(text: &str) -> AttributeValue {
    AttributeValue::S(text.to_owned())
}

pub fn n(number: impl ToString) -> AttributeValue {
    AttributeValue::N(number.to_string())
}

pub fn item<const N: usize>(attributes: [(&str, AttributeValue); N]) -> Item {
    attributes.map(|(name, value)| (name.to_owned(), value)).into()
}

pub fn id(id: &str) -> Item {
    item([("id", s(id))])
}

/// A row of the table `rows`.
pub fn row(id: &str, at: i64) -> Item {
    item([("id", s(id)), ("at", n(at))])
}

/// An item and more of it.
pub fn with<const N: usize>(mut whole: Item, attributes: [(&str, AttributeValue); N]) -> Item {
    whole.extend(item(attributes));
    whole
}

/// The numbers `at` of the rows, in their order.
pub fn ats(items: &[Item]) -> Vec<i64> {
    items.iter().map(|item| item["at"].as_n().unwrap().parse().unwrap()).collect()
}

pub fn ids(items: &[Item]) -> Vec<String> {
    items.iter().map(|item| item["id"].as_s().unwrap().clone()).collect()
}
