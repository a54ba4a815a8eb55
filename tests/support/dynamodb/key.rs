//! Keys: what a schema demands of an item, and the order that keys give.

use serde::{Deserialize, Serialize};

use super::number::Number;
use super::refusal::{Answer, Refusal};
use super::value::{Attributes, Value};

/// Bytes of a partition key's and of a sort key's value.
const PARTITION_BYTES_MAX: usize = 2048;
const SORT_BYTES_MAX: usize = 1024;

/// A key attribute's value, in the order of its type.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scalar {
    S(String),
    N(Number),
    B(Vec<u8>),
}

impl Scalar {
    pub fn of(value: &Value) -> Option<Self> {
        match value {
            Value::S(text) => Some(Self::S(text.clone())),
            Value::N(number) => Some(Self::N(*number)),
            Value::B(bytes) => Some(Self::B(bytes.clone())),
            _ => None,
        }
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Self::S(text) => text.as_bytes(),
            Self::N(_) => &[],
            Self::B(bytes) => bytes,
        }
    }
}

/// Partitions stand in the order of a hash, as the service has them, so that nobody comes to rely on the order of a Scan.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Partition {
    pub hash: u64,
    pub key: Scalar,
}

impl Partition {
    pub fn of(key: Scalar) -> Self {
        // FNV-1a.
        let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        let start = 0xcbf2_9ce4_8422_2325;
        let hash = match &key {
            Scalar::N(number) => number.to_string().as_bytes().iter().fold(start, step),
            other => other.bytes().iter().fold(start, step),
        };
        Self { hash, key }
    }
}

/// A primary key.
pub type Key = (Scalar, Option<Scalar>);

#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct KeyElement {
    pub attribute_name: String,
    pub key_type: String,
}

/// One attribute of a key, with its type's name.
#[derive(Clone, Debug)]
pub struct KeyAttribute {
    pub name: String,
    pub kind: String,
}

#[derive(Clone, Debug)]
pub struct Schema {
    pub partition: KeyAttribute,
    pub sort: Option<KeyAttribute>,
}

impl Schema {
    pub fn attributes(&self) -> impl Iterator<Item = &KeyAttribute> {
        std::iter::once(&self.partition).chain(&self.sort)
    }

    pub fn names(&self) -> Vec<&str> {
        self.attributes().map(|attribute| attribute.name.as_str()).collect()
    }

    /// The primary key of an item that is to be written.
    pub fn key_of_item(&self, item: &Attributes) -> Answer<Key> {
        let part = |attribute: &KeyAttribute, bytes_max| {
            let value = item
                .get(&attribute.name)
                .ok_or_else(|| Refusal::invalid_value(format!("Missing the key {} in the item", attribute.name)))?;
            if value.kind() != attribute.kind {
                let (name, expected, actual) = (&attribute.name, &attribute.kind, value.kind());
                let message = format!("Type mismatch for key {name} expected: {expected} actual: {actual}");
                return Err(Refusal::invalid_value(message));
            }
            key_part(attribute, value, bytes_max)
        };
        let sort = self.sort.as_ref().map(|attribute| part(attribute, SORT_BYTES_MAX)).transpose()?;
        Ok((part(&self.partition, PARTITION_BYTES_MAX)?, sort))
    }

    /// The primary key that a request names: these attributes and no others.
    pub fn key_of_request(&self, key: &Attributes) -> Answer<Key> {
        let mismatch = || Refusal::validation("The provided key element does not match the schema");
        if key.len() != self.attributes().count() {
            return Err(Refusal::validation("The number of conditions on the keys is invalid"));
        }
        let part = |attribute: &KeyAttribute, bytes_max| {
            let value = key.get(&attribute.name).filter(|value| value.kind() == attribute.kind).ok_or_else(mismatch)?;
            key_part(attribute, value, bytes_max)
        };
        let sort = self.sort.as_ref().map(|attribute| part(attribute, SORT_BYTES_MAX)).transpose()?;
        Ok((part(&self.partition, PARTITION_BYTES_MAX)?, sort))
    }

    /// Where an item stands in an index; nowhere if it lacks an attribute of its key.
    pub fn place(&self, item: &Attributes) -> Option<(Partition, Option<Scalar>)> {
        let partition = Partition::of(Scalar::of(item.get(&self.partition.name)?)?);
        match &self.sort {
            Some(sort) => Some((partition, Some(Scalar::of(item.get(&sort.name)?)?))),
            None => Some((partition, None)),
        }
    }

    /// Fails if an attribute of this index's key is there and can be none.
    pub fn check_index(&self, index: &str, item: &Attributes) -> Answer<()> {
        for (attribute, bytes_max) in self.attributes().zip([PARTITION_BYTES_MAX, SORT_BYTES_MAX]) {
            let Some(value) = item.get(&attribute.name) else { continue };
            let (name, expected, actual) = (&attribute.name, &attribute.kind, value.kind());
            if actual != expected {
                let message = format!(
                    "Type mismatch for Index Key {name} Expected: {expected} Actual: {actual} IndexName: {index}"
                );
                return Err(Refusal::invalid_value(message));
            }
            if key_part(attribute, value, bytes_max).is_err() {
                let message = "One or more parameter values are not valid. A value specified for a secondary index key is not \
                               supported. The AttributeValue for a key attribute cannot contain an empty string value, or is too long.";
                return Err(Refusal::validation(format!("{message} IndexName: {index}, IndexKey: {name}")));
            }
        }
        Ok(())
    }
}

/// A value of the attribute's own type.
fn key_part(attribute: &KeyAttribute, value: &Value, bytes_max: usize) -> Answer<Scalar> {
    let scalar =
        Scalar::of(value).ok_or_else(|| Refusal::validation("The provided key element does not match the schema"))?;
    let kind = match &scalar {
        Scalar::N(_) => return Ok(scalar),
        Scalar::S(_) => "string",
        Scalar::B(_) => "binary",
    };
    match scalar.bytes().len() {
        0 => Err(Refusal::validation(format!(
            "One or more parameter values are not valid. The AttributeValue for a key attribute cannot contain an empty {kind} value. Key: {}",
            attribute.name
        ))),
        length if length > bytes_max && bytes_max == PARTITION_BYTES_MAX => Err(Refusal::invalid_value(format!(
            "Size of hashkey has exceeded the maximum size limit of{bytes_max} bytes"
        ))),
        length if length > bytes_max => {
            let message = "Aggregated size of all range keys has exceeded the size limit of";
            Err(Refusal::invalid_value(format!("{message} {bytes_max} bytes")))
        }
        _ => Ok(scalar),
    }
}
