//! Expressions as trees, and the placeholders that they were written with.
//!
//! Which placeholders were used is noted, since the service refuses those that no expression uses.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use super::path::Path;
use super::refusal::{Answer, Refusal};
use super::value::{Attributes, Value};

/// ExpressionAttributeNames and ExpressionAttributeValues of one request.
pub struct Placeholders<'a> {
    names: &'a BTreeMap<String, String>,
    values: &'a Attributes,
    unused_names: RefCell<BTreeSet<&'a str>>,
    unused_values: RefCell<BTreeSet<&'a str>>,
}

impl<'a> Placeholders<'a> {
    pub fn new(names: &'a BTreeMap<String, String>, values: &'a Attributes) -> Answer<Self> {
        values.values().try_for_each(Value::check)?;
        let all_names = names.keys().map(String::as_str).collect();
        let all_values = values.keys().map(String::as_str).collect();
        Ok(Self { names, values, unused_names: RefCell::new(all_names), unused_values: RefCell::new(all_values) })
    }

    pub fn name(&self, placeholder: &str) -> Option<&'a str> {
        self.unused_names.borrow_mut().remove(placeholder);
        self.names.get(placeholder).map(String::as_str)
    }

    pub fn value(&self, placeholder: &str) -> Option<&'a Value> {
        self.unused_values.borrow_mut().remove(placeholder);
        self.values.get(placeholder)
    }

    /// Fails if there is a name or value that no expression used.
    pub fn all_used(&self) -> Answer<()> {
        for (member, unused) in [("Names", &self.unused_names), ("Values", &self.unused_values)] {
            let unused: Vec<&str> = unused.borrow().iter().copied().collect();
            if !unused.is_empty() {
                let keys = unused.join(", ");
                return Err(Refusal::validation(format!(
                    "Value provided in ExpressionAttribute{member} unused in expressions: keys: {{{keys}}}"
                )));
            }
        }
        Ok(())
    }
}

#[derive(Clone, Debug, PartialEq)]
pub enum Operand<'a> {
    Path(Path),
    Value(&'a Value),
    Size(Path),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparator {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Condition<'a> {
    Compare(Operand<'a>, Comparator, Operand<'a>),
    Between(Operand<'a>, Operand<'a>, Operand<'a>),
    In(Operand<'a>, Vec<Operand<'a>>),
    Exists(Path),
    NotExists(Path),
    HasType(Path, &'a str),
    BeginsWith(Operand<'a>, Operand<'a>),
    Contains(Operand<'a>, Operand<'a>),
    And(Box<Self>, Box<Self>),
    Or(Box<Self>, Box<Self>),
    Not(Box<Self>),
}

/// What stands right of a SET's `=`.
#[derive(Clone, Debug, PartialEq)]
pub enum Term<'a> {
    Path(Path),
    Value(&'a Value),
    IfNotExists(Path, Box<Self>),
    ListAppend(Box<Self>, Box<Self>),
    Plus(Box<Self>, Box<Self>),
    Minus(Box<Self>, Box<Self>),
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Update<'a> {
    pub set: Vec<(Path, Term<'a>)>,
    pub remove: Vec<Path>,
    pub add: Vec<(Path, &'a Value)>,
    pub delete: Vec<(Path, &'a Value)>,
}

impl Comparator {
    pub fn sign(self) -> &'static str {
        match self {
            Self::Equal => "=",
            Self::NotEqual => "<>",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
        }
    }
}
