//! Applies an update to an item. Every right side sees the item as it was before.

use std::cmp::Reverse;

use super::number::Number;
use super::path::{Path, PathSet};
use super::refusal::{Answer, Refusal};
use super::tree::{Term, Update};
use super::value::{Attributes, Value};

impl Update<'_> {
    fn paths(&self) -> impl Iterator<Item = &Path> {
        let set = self.set.iter().map(|(path, _)| path);
        let add = self.add.iter().map(|(path, _)| path);
        set.chain(&self.remove).chain(add).chain(self.delete.iter().map(|(path, _)| path))
    }

    /// The paths that it changes. Fails if two overlap or one belongs to the key.
    pub fn changed(&self, key: &[&str]) -> Answer<PathSet> {
        let mut changed = PathSet::default();
        for path in self.paths() {
            if key.contains(&path.root.as_str()) {
                let message = format!("Cannot update attribute {}. This attribute is part of the key", path.root);
                return Err(Refusal::invalid_value(message));
            }
            changed.add(path, "UpdateExpression")?;
        }
        Ok(changed)
    }

    /// The item after it.
    pub fn apply(&self, before: &Attributes) -> Answer<Attributes> {
        let mut after = before.clone();
        for (path, term) in &self.set {
            path.set(&mut after, term.of(before)?)?;
        }
        for (path, value) in &self.add {
            path.set(&mut after, added(path.get(before), value)?)?;
        }
        for (path, value) in &self.delete {
            let Some(present) = path.get(before) else { continue };
            match left_after(present, value)? {
                Some(left) => path.set(&mut after, left)?,
                None => path.remove(&mut after)?,
            }
        }
        let mut removed: Vec<&Path> = self.remove.iter().collect();
        removed.sort_by_key(|path| Reverse(path.last_index()));
        removed.into_iter().try_for_each(|path| path.remove(&mut after))?;
        Ok(after)
    }
}

fn wrong_type() -> Refusal {
    Refusal::validation("An operand in the update expression has an incorrect data type")
}

impl Term<'_> {
    fn of(&self, item: &Attributes) -> Answer<Value> {
        let sum = |left: &Self, right: &Self, apply: fn(&Number, &Number) -> Result<Number, String>| {
            let (Value::N(left), Value::N(right)) = (left.of(item)?, right.of(item)?) else { return Err(wrong_type()) };
            apply(&left, &right).map(Value::N).map_err(Refusal::validation)
        };
        match self {
            Self::Value(value) => Ok((*value).clone()),
            Self::Path(path) => path.get(item).cloned().ok_or_else(|| {
                Refusal::validation("The provided expression refers to an attribute that does not exist in the item")
            }),
            Self::IfNotExists(path, other) => path.get(item).cloned().map_or_else(|| other.of(item), Ok),
            Self::ListAppend(first, second) => match (first.of(item)?, second.of(item)?) {
                (Value::L(first), Value::L(second)) => Ok(Value::L([first, second].concat())),
                _ => Err(wrong_type()),
            },
            Self::Plus(left, right) => sum(left, right, Number::add),
            Self::Minus(left, right) => sum(left, right, Number::subtract),
        }
    }
}

/// ADD: numbers are summed, sets united; what is missing counts as zero or empty.
fn added(present: Option<&Value>, value: &Value) -> Answer<Value> {
    match (present, value) {
        (None, Value::N(_) | Value::Ss(_) | Value::Ns(_) | Value::Bs(_)) => Ok(value.clone()),
        (Some(Value::N(present)), Value::N(value)) => present.add(value).map(Value::N).map_err(Refusal::validation),
        (Some(Value::Ss(present)), Value::Ss(value)) => Ok(Value::Ss(present | value)),
        (Some(Value::Ns(present)), Value::Ns(value)) => Ok(Value::Ns(present | value)),
        (Some(Value::Bs(present)), Value::Bs(value)) => Ok(Value::Bs(present | value)),
        (None, other) => {
            let message = "Incorrect operand type for operator or function; operator: ADD, operand type";
            Err(Refusal::validation(format!("Invalid UpdateExpression: {message}: {}", other.kind())))
        }
        _ => Err(wrong_type()),
    }
}

/// DELETE: the set without the given elements; an empty one is no attribute.
fn left_after(present: &Value, value: &Value) -> Answer<Option<Value>> {
    Ok(match (present, value) {
        (Value::Ss(present), Value::Ss(value)) => Some(present - value).filter(|set| !set.is_empty()).map(Value::Ss),
        (Value::Ns(present), Value::Ns(value)) => Some(present - value).filter(|set| !set.is_empty()).map(Value::Ns),
        (Value::Bs(present), Value::Bs(value)) => Some(present - value).filter(|set| !set.is_empty()).map(Value::Bs),
        _ => return Err(wrong_type()),
    })
}
