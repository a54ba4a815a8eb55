//! Paths into an item: what they find, what they set and remove, and sets of them that may not overlap.

use std::collections::BTreeMap;
use std::fmt;

use super::refusal::{Answer, Refusal};
use super::value::{Attributes, Value};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    Name(String),
    Index(usize),
}

/// The attribute's name, and the steps below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path {
    pub root: String,
    pub steps: Vec<Step>,
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}", self.root)?;
        for step in &self.steps {
            match step {
                Step::Name(name) => write!(f, ", {name}")?,
                Step::Index(index) => write!(f, ", [{index}]")?,
            }
        }
        f.write_str("]")
    }
}

fn below<'a>(value: &'a Value, step: &Step) -> Option<&'a Value> {
    match (value, step) {
        (Value::M(map), Step::Name(name)) => map.get(name),
        (Value::L(list), Step::Index(index)) => list.get(*index),
        _ => None,
    }
}

impl Path {
    pub fn get<'a>(&self, item: &'a Attributes) -> Option<&'a Value> {
        self.steps.iter().try_fold(item.get(&self.root)?, below)
    }

    /// What holds the last step's element.
    fn parent<'a>(&self, item: &'a mut Attributes) -> Option<&'a mut Value> {
        let above = self.steps.len().saturating_sub(1);
        self.steps[..above].iter().try_fold(item.get_mut(&self.root)?, |value, step| match (value, step) {
            (Value::M(map), Step::Name(name)) => map.get_mut(name),
            (Value::L(list), Step::Index(index)) => list.get_mut(*index),
            _ => None,
        })
    }

    pub fn set(&self, item: &mut Attributes, value: Value) -> Answer<()> {
        let wrong = || Refusal::validation("The document path provided in the update expression is invalid for update");
        let Some(last) = self.steps.last() else {
            item.insert(self.root.clone(), value);
            return Ok(());
        };
        match (self.parent(item).ok_or_else(wrong)?, last) {
            (Value::M(map), Step::Name(name)) => drop(map.insert(name.clone(), value)),
            (Value::L(list), Step::Index(index)) if *index < list.len() => list[*index] = value,
            (Value::L(list), Step::Index(_)) => list.push(value),
            _ => return Err(wrong()),
        }
        Ok(())
    }

    pub fn remove(&self, item: &mut Attributes) -> Answer<()> {
        let wrong = || Refusal::validation("The document path provided in the update expression is invalid for update");
        let Some(last) = self.steps.last() else {
            item.remove(&self.root);
            return Ok(());
        };
        match (self.parent(item).ok_or_else(wrong)?, last) {
            (Value::M(map), Step::Name(name)) => drop(map.remove(name)),
            (Value::L(list), Step::Index(index)) if *index < list.len() => drop(list.remove(*index)),
            (Value::L(_), Step::Index(_)) => {}
            _ => return Err(wrong()),
        }
        Ok(())
    }

    /// The last step's index, for removals from one list: the highest goes first.
    pub fn last_index(&self) -> Option<usize> {
        match self.steps.last() {
            Some(Step::Index(index)) => Some(*index),
            _ => None,
        }
    }
}

/// A set of paths as a tree.
#[derive(Debug, Default)]
pub struct PathSet(BTreeMap<String, Branch>);

#[derive(Debug)]
enum Branch {
    /// A path ends here.
    Whole(Path),
    Names(BTreeMap<String, Branch>),
    Indexes(BTreeMap<usize, Branch>),
}

impl PathSet {
    /// Adds one that neither overlaps with one that is there nor takes for a list what another takes for a map.
    pub fn add(&mut self, path: &Path, clause: &str) -> Answer<()> {
        let refuse = |what: &str, other: &Path| {
            let rest = "must remove or rewrite one of these paths; path one";
            Err(Refusal::validation(format!(
                "Invalid {clause}: Two document paths {what} with each other; {rest}: {other}, path two: {path}"
            )))
        };
        let fresh = |steps: &[Step]| {
            steps.iter().rev().fold(Branch::Whole(path.clone()), |below, step| match step {
                Step::Name(name) => Branch::Names(BTreeMap::from([(name.clone(), below)])),
                Step::Index(index) => Branch::Indexes(BTreeMap::from([(*index, below)])),
            })
        };
        let Some(mut branch) = self.0.get_mut(&path.root) else {
            self.0.insert(path.root.clone(), fresh(&path.steps));
            return Ok(());
        };
        for (at, step) in path.steps.iter().enumerate() {
            let rest = &path.steps[at + 1..];
            branch = match (branch, step) {
                (Branch::Whole(other), _) => return refuse("overlap", &other.clone()),
                (Branch::Names(names), Step::Name(name)) => {
                    if !names.contains_key(name) {
                        names.insert(name.clone(), fresh(rest));
                        return Ok(());
                    }
                    names.get_mut(name).expect("it is there")
                }
                (Branch::Indexes(indexes), Step::Index(index)) => {
                    if !indexes.contains_key(index) {
                        indexes.insert(*index, fresh(rest));
                        return Ok(());
                    }
                    indexes.get_mut(index).expect("it is there")
                }
                (branch, _) => return refuse("conflict", &branch.any().clone()),
            };
        }
        refuse("overlap", &branch.any().clone())
    }

    /// The attributes that they name at the root.
    pub fn roots(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// What the paths find in an item, in its shape; of lists the elements found, without gaps.
    pub fn project(&self, item: &Attributes) -> Attributes {
        project_names(&self.0, item)
    }
}

fn project_names(names: &BTreeMap<String, Branch>, map: &Attributes) -> Attributes {
    let found = |(name, branch): (&String, &Branch)| Some((name.clone(), branch.project(map.get(name)?)?));
    names.iter().filter_map(found).collect()
}

impl Branch {
    fn any(&self) -> &Path {
        match self {
            Self::Whole(path) => path,
            Self::Names(names) => names.values().next().expect("never empty").any(),
            Self::Indexes(indexes) => indexes.values().next().expect("never empty").any(),
        }
    }

    fn project(&self, value: &Value) -> Option<Value> {
        match (self, value) {
            (Self::Whole(_), value) => Some(value.clone()),
            (Self::Names(names), Value::M(map)) => {
                Some(project_names(names, map)).filter(|m| !m.is_empty()).map(Value::M)
            }
            (Self::Indexes(indexes), Value::L(list)) => {
                let found = |(index, branch): (&usize, &Self)| branch.project(list.get(*index)?);
                Some(indexes.iter().filter_map(found).collect::<Vec<_>>()).filter(|l| !l.is_empty()).map(Value::L)
            }
            _ => None,
        }
    }
}
