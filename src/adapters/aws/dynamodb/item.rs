//! Items as DynamoDB holds them, read and written attribute by attribute.

use std::collections::HashMap;
use std::str::FromStr;

use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::AttributeValue;
use bytes::Bytes;

use crate::domain::time::Timestamp;
use crate::ports::StoreError;

pub(super) type Item = HashMap<String, AttributeValue>;

pub(super) fn text(value: impl Into<String>) -> AttributeValue {
    AttributeValue::S(value.into())
}

pub(super) fn number(value: impl std::fmt::Display) -> AttributeValue {
    AttributeValue::N(value.to_string())
}

pub(super) fn binary(value: impl Into<Vec<u8>>) -> AttributeValue {
    AttributeValue::B(Blob::new(value))
}

/// An item of these attributes; those without a value are left out.
pub(super) fn item<const N: usize>(attributes: [(&str, Option<AttributeValue>); N]) -> Item {
    attributes.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
}

/// When an item is to go, in DynamoDB's seconds; a moment late rather than early.
pub(super) fn ttl(at: Timestamp) -> AttributeValue {
    number(at.as_millis().div_ceil(1000))
}

pub(super) fn damaged(what: &str, error: impl std::fmt::Display) -> StoreError {
    StoreError::Corrupt(format!("{what}: {error}"))
}

/// Reads attributes; what is missing or of another type is damage.
pub(super) trait Attributes {
    fn maybe_text(&self, name: &str) -> Option<&str>;
    fn maybe_number(&self, name: &str) -> Option<u64>;
    fn maybe_binary(&self, name: &str) -> Option<&[u8]>;

    fn text(&self, name: &str) -> Result<&str, StoreError> {
        self.maybe_text(name).ok_or_else(|| missing(name))
    }

    fn number(&self, name: &str) -> Result<u64, StoreError> {
        self.maybe_number(name).ok_or_else(|| missing(name))
    }

    fn binary(&self, name: &str) -> Result<&[u8], StoreError> {
        self.maybe_binary(name).ok_or_else(|| missing(name))
    }

    /// Text that stands for something else: an id, a digest.
    fn parsed<T: FromStr>(&self, name: &str) -> Result<T, StoreError> {
        self.text(name)?.parse().map_err(|_| missing(name))
    }

    fn small(&self, name: &str) -> Result<u32, StoreError> {
        u32::try_from(self.number(name)?).map_err(|error| damaged(name, error))
    }

    fn time(&self, name: &str) -> Result<Timestamp, StoreError> {
        self.number(name).map(Timestamp)
    }
}

impl Attributes for Item {
    fn maybe_text(&self, name: &str) -> Option<&str> {
        self.get(name)?.as_s().ok().map(String::as_str)
    }

    fn maybe_number(&self, name: &str) -> Option<u64> {
        self.get(name)?.as_n().ok()?.parse().ok()
    }

    fn maybe_binary(&self, name: &str) -> Option<&[u8]> {
        self.get(name)?.as_b().ok().map(AsRef::as_ref)
    }
}

/// Takes bytes out of an item without copying them.
pub(super) fn take_binary(item: &mut Item, name: &str) -> Option<Bytes> {
    match item.remove(name) {
        Some(AttributeValue::B(blob)) => Some(Bytes::from(blob.into_inner())),
        _ => None,
    }
}

fn missing(name: &str) -> StoreError {
    damaged("read an item", format!("{name} is not what it should be"))
}
