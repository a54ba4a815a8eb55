//! Attribute values: how they are written in JSON, what they count, and how they are ordered.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::de::{Error as _, MapAccess, Visitor};
use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::number::Number;
use super::refusal::{Answer, Refusal};

pub type Attributes = BTreeMap<String, Value>;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    S(String),
    N(Number),
    B(Vec<u8>),
    Ss(BTreeSet<String>),
    Ns(BTreeSet<Number>),
    Bs(BTreeSet<Vec<u8>>),
    M(Attributes),
    L(Vec<Value>),
    Bool(bool),
    Null,
}

/// How deep documents may nest.
const DEPTH_MAX: usize = 32;

impl Value {
    /// The name of its type, as the protocol and `attribute_type` have it.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::S(_) => "S",
            Self::N(_) => "N",
            Self::B(_) => "B",
            Self::Ss(_) => "SS",
            Self::Ns(_) => "NS",
            Self::Bs(_) => "BS",
            Self::M(_) => "M",
            Self::L(_) => "L",
            Self::Bool(_) => "BOOL",
            Self::Null => "NULL",
        }
    }

    /// What it counts in an item's size, by the developer guide's rules.
    pub fn size(&self) -> usize {
        match self {
            Self::S(text) => text.len(),
            Self::N(number) => number.size(),
            Self::B(bytes) => bytes.len(),
            Self::Ss(set) => set.iter().map(String::len).sum(),
            Self::Ns(set) => set.iter().map(Number::size).sum(),
            Self::Bs(set) => set.iter().map(Vec::len).sum(),
            Self::M(map) => 3 + map.len() + size_of_attributes(map),
            Self::L(list) => 3 + list.iter().map(|value| 1 + value.size()).sum::<usize>(),
            Self::Bool(_) | Self::Null => 1,
        }
    }

    /// The order of values of one type that has one.
    pub fn compare(&self, other: &Self) -> Option<Ordering> {
        match (self, other) {
            (Self::S(a), Self::S(b)) => Some(a.as_bytes().cmp(b.as_bytes())),
            (Self::N(a), Self::N(b)) => Some(a.cmp(b)),
            (Self::B(a), Self::B(b)) => Some(a.cmp(b)),
            _ => None,
        }
    }

    pub fn check(&self) -> Answer<()> {
        self.check_to(DEPTH_MAX)
    }

    fn check_to(&self, depth: usize) -> Answer<()> {
        let empty = match self {
            Self::Ss(set) if set.is_empty() => "An string set  may not be empty",
            Self::Ns(set) if set.is_empty() => "An number set  may not be empty",
            Self::Bs(set) if set.is_empty() => "Binary sets should not be empty",
            Self::M(_) | Self::L(_) if depth == 0 => {
                return Err(Refusal::validation("Nesting Levels have exceeded supported limits"));
            }
            Self::M(map) => return map.values().try_for_each(|value| value.check_to(depth - 1)),
            Self::L(list) => return list.iter().try_for_each(|value| value.check_to(depth - 1)),
            _ => return Ok(()),
        };
        Err(Refusal::invalid_value(empty))
    }
}

pub fn size_of_attributes(attributes: &Attributes) -> usize {
    attributes.iter().map(|(name, value)| name.len() + value.size()).sum()
}

/// Bytes as the protocol writes them.
struct Base64(Vec<u8>);

impl<'de> Deserialize<'de> for Base64 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        BASE64.decode(text.as_bytes()).map(Self).map_err(D::Error::custom)
    }
}

struct NumberText(Number);

impl<'de> Deserialize<'de> for NumberText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Number::parse(&text).map(Self).map_err(|message| D::Error::custom(format!("{INVALID}{message}")))
    }
}

/// Marks a message of the decoder as one about a value, which the service answers as a ValidationException.
pub const INVALID: &str = "invalid value: ";

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an attribute value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let invalid = |message: &str| A::Error::custom(format!("{INVALID}{message}"));
        let Some(kind) = map.next_key::<std::borrow::Cow<'de, str>>()? else {
            let message = "Supplied AttributeValue is empty, must contain exactly one of the supported datatypes";
            return Err(invalid(message));
        };
        fn set<T: Ord, E: serde::de::Error>(values: Vec<T>) -> Result<BTreeSet<T>, E> {
            let count = values.len();
            let set: BTreeSet<T> = values.into_iter().collect();
            if set.len() == count {
                Ok(set)
            } else {
                Err(E::custom(format!("{INVALID}Input collection contains duplicates.")))
            }
        }
        let value = match &*kind {
            "S" => Value::S(map.next_value()?),
            "N" => Value::N(map.next_value::<NumberText>()?.0),
            "B" => Value::B(map.next_value::<Base64>()?.0),
            "SS" => Value::Ss(set(map.next_value()?)?),
            "NS" => Value::Ns(set(map.next_value::<Vec<NumberText>>()?.into_iter().map(|n| n.0).collect())?),
            "BS" => Value::Bs(set(map.next_value::<Vec<Base64>>()?.into_iter().map(|b| b.0).collect())?),
            "M" => Value::M(map.next_value()?),
            "L" => Value::L(map.next_value()?),
            "BOOL" => Value::Bool(map.next_value()?),
            "NULL" => match map.next_value()? {
                true => Value::Null,
                false => return Err(invalid("Null attribute value types must have the value of true")),
            },
            other => return Err(A::Error::custom(format!("{other} is no attribute type"))),
        };
        if map.next_key::<serde::de::IgnoredAny>()?.is_some() {
            let message = "Supplied AttributeValue has more than one datatypes set, must contain exactly one of the supported datatypes";
            return Err(invalid(message));
        }
        Ok(value)
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ValueVisitor)
    }
}

/// Writes each element of a set as a string.
struct Strings<I>(I);

impl<I: Iterator<Item = String> + Clone> Serialize for Strings<I> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(None)?;
        for text in self.0.clone() {
            list.serialize_element(&text)?;
        }
        list.end()
    }
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(1))?;
        let kind = self.kind();
        match self {
            Self::S(text) => map.serialize_entry(kind, text)?,
            Self::N(number) => map.serialize_entry(kind, &number.to_string())?,
            Self::B(bytes) => map.serialize_entry(kind, &BASE64.encode(bytes))?,
            Self::Ss(set) => map.serialize_entry(kind, set)?,
            Self::Ns(set) => map.serialize_entry(kind, &Strings(set.iter().map(Number::to_string)))?,
            Self::Bs(set) => map.serialize_entry(kind, &Strings(set.iter().map(|bytes| BASE64.encode(bytes))))?,
            Self::M(attributes) => map.serialize_entry(kind, attributes)?,
            Self::L(list) => map.serialize_entry(kind, list)?,
            Self::Bool(truth) => map.serialize_entry(kind, truth)?,
            Self::Null => map.serialize_entry(kind, &true)?,
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_is_read_and_written() {
        let text = r#"{"b":{"B":"AAE="},"bs":{"BS":["AA==","AQ=="]},"f":{"BOOL":false},"l":{"L":[{"S":""},{"N":"-1.5"}]},"m":{"M":{"x":{"NULL":true}}},"n":{"N":"1000"},"ns":{"NS":["2","10"]},"s":{"S":"é\n"},"ss":{"SS":["a","b"]}}"#;
        let attributes: Attributes = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&attributes).unwrap(), text);
        assert_eq!(attributes["l"].size(), 3 + 1 + 1 + 3);
        assert_eq!(attributes["m"].size(), 3 + 1 + 2);
        assert_eq!(
            size_of_attributes(&attributes),
            1 + 2 + 2 + 2 + 1 + 1 + 1 + 8 + 1 + 6 + 1 + 2 + 2 + 4 + 1 + 3 + 2 + 2
        );
    }

    #[test]
    fn what_is_no_value_is_refused() {
        for wrong in [
            "{}",
            r#"{"S":1}"#,
            r#"{"N":1}"#,
            r#"{"N":"x"}"#,
            r#"{"S":"a","N":"1"}"#,
            r#"{"X":"a"}"#,
            r#"{"NULL":false}"#,
            r#"{"B":"!"}"#,
            r#"{"SS":["a","a"]}"#,
            r#"{"NS":["1","1.0"]}"#,
        ] {
            assert!(serde_json::from_str::<Value>(wrong).is_err(), "{wrong}");
        }
        assert!(serde_json::from_str::<Value>(r#"{"SS":[]}"#).unwrap().check().is_err());
    }
}
