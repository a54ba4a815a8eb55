//! Says whether an item meets a condition.

use std::borrow::Cow;

use super::number::Number;
use super::tree::{Comparator, Condition, Operand};
use super::value::{Attributes, Value};

impl Operand<'_> {
    fn of<'i>(&'i self, item: &'i Attributes) -> Option<Cow<'i, Value>> {
        match self {
            Self::Path(path) => path.get(item).map(Cow::Borrowed),
            Self::Value(value) => Some(Cow::Borrowed(*value)),
            Self::Size(path) => {
                let size = match path.get(item)? {
                    Value::S(text) => text.chars().count(),
                    Value::B(bytes) => bytes.len(),
                    Value::Ss(set) => set.len(),
                    Value::Ns(set) => set.len(),
                    Value::Bs(set) => set.len(),
                    Value::M(map) => map.len(),
                    Value::L(list) => list.len(),
                    Value::N(_) | Value::Bool(_) | Value::Null => return None,
                };
                Some(Cow::Owned(Value::N(Number::of(size))))
            }
        }
    }
}

impl Comparator {
    fn holds(self, left: &Value, right: &Value) -> bool {
        let order = left.compare(right);
        match self {
            Self::Equal => left == right,
            Self::NotEqual => left != right,
            Self::Less => order.is_some_and(|order| order.is_lt()),
            Self::LessOrEqual => order.is_some_and(|order| order.is_le()),
            Self::Greater => order.is_some_and(|order| order.is_gt()),
            Self::GreaterOrEqual => order.is_some_and(|order| order.is_ge()),
        }
    }
}

impl Condition<'_> {
    /// A missing attribute equals nothing and is in no order: of the comparisons only `<>` holds for it.
    pub fn holds(&self, item: &Attributes) -> bool {
        match self {
            Self::Compare(left, comparator, right) => match (left.of(item), right.of(item)) {
                (Some(left), Some(right)) => comparator.holds(&left, &right),
                _ => *comparator == Comparator::NotEqual,
            },
            Self::Between(value, low, high) => match (value.of(item), low.of(item), high.of(item)) {
                (Some(value), Some(low), Some(high)) => {
                    Comparator::GreaterOrEqual.holds(&value, &low) && Comparator::LessOrEqual.holds(&value, &high)
                }
                _ => false,
            },
            Self::In(value, list) => value
                .of(item)
                .is_some_and(|value| list.iter().any(|other| other.of(item).is_some_and(|other| value == other))),
            Self::Exists(path) => path.get(item).is_some(),
            Self::NotExists(path) => path.get(item).is_none(),
            Self::HasType(path, kind) => path.get(item).is_some_and(|value| value.kind() == *kind),
            Self::BeginsWith(text, start) => match (text.of(item).as_deref(), start.of(item).as_deref()) {
                (Some(Value::S(text)), Some(Value::S(start))) => text.starts_with(start.as_str()),
                (Some(Value::B(bytes)), Some(Value::B(start))) => bytes.starts_with(start),
                _ => false,
            },
            Self::Contains(whole, part) => match (whole.of(item).as_deref(), part.of(item).as_deref()) {
                (Some(Value::S(text)), Some(Value::S(part))) => text.contains(part.as_str()),
                (Some(Value::B(bytes)), Some(Value::B(part))) => {
                    part.is_empty() || bytes.windows(part.len()).any(|window| window == part.as_slice())
                }
                (Some(Value::Ss(set)), Some(Value::S(part))) => set.contains(part),
                (Some(Value::Ns(set)), Some(Value::N(part))) => set.contains(part),
                (Some(Value::Bs(set)), Some(Value::B(part))) => set.contains(part),
                (Some(Value::L(list)), Some(part)) => list.contains(part),
                _ => false,
            },
            Self::And(left, right) => left.holds(item) && right.holds(item),
            Self::Or(left, right) => left.holds(item) || right.holds(item),
            Self::Not(inner) => !inner.holds(item),
        }
    }

    /// The attributes that it names at the root.
    pub fn roots(&self) -> Vec<&str> {
        let mut roots = Vec::new();
        self.visit(&mut |root| roots.push(root));
        roots
    }

    fn visit<'c>(&'c self, note: &mut impl FnMut(&'c str)) {
        let mut operands = |list: &[&'c Operand<'_>]| {
            for operand in list {
                match operand {
                    Operand::Path(path) | Operand::Size(path) => note(&path.root),
                    Operand::Value(_) => {}
                }
            }
        };
        match self {
            Self::Compare(left, _, right) => operands(&[left, right]),
            Self::Between(value, low, high) => operands(&[value, low, high]),
            Self::In(value, list) => {
                operands(&[value]);
                list.iter().for_each(|operand| operands(&[operand]));
            }
            Self::BeginsWith(one, other) | Self::Contains(one, other) => operands(&[one, other]),
            Self::Exists(path) | Self::NotExists(path) | Self::HasType(path, _) => note(&path.root),
            Self::And(left, right) | Self::Or(left, right) => {
                left.visit(note);
                right.visit(note);
            }
            Self::Not(inner) => inner.visit(note),
        }
    }
}
