//! Query and Scan: rows of a table or an index in order, a page at a time.

use std::borrow::Cow;
use std::ops::Bound;
use std::sync::Arc;

use serde::Serialize;

use super::State;
use super::grammar::Parser;
use super::items::{answer, paths};
use super::key::{KeyAttribute, Partition, Scalar, Schema};
use super::path::PathSet;
use super::refusal::{Answer, Refusal};
use super::requests::Read;
use super::table::{Index, Item, Partitions, Position, Table, Tie};
use super::tree::{Comparator, Condition, Operand, Placeholders};
use super::value::{Attributes, Value};

/// Bytes of items that a page looks at.
const PAGE_BYTES_MAX: usize = 1 << 20;

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Page<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    items: Option<Vec<Cow<'a, Attributes>>>,
    count: usize,
    scanned_count: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_evaluated_key: Option<Attributes>,
}

/// What a Query's key condition says.
struct Wanted<'a> {
    partition: Partition,
    sort: Option<Condition<'a>>,
}

/// A table or one of its indexes, and what of its rows is answered.
struct Source<'t> {
    table: &'t Table,
    index: Option<&'t Index>,
    schema: &'t Schema,
    rows: &'t Partitions,
}

impl State {
    pub fn query(&mut self, read: &Read) -> Answer<Vec<u8>> {
        self.table_mut(&read.table_name)?.catch_up();
        let placeholders = Placeholders::new(&read.expression_attribute_names, &read.expression_attribute_values)?;
        let source = self.source(read)?;
        let Some(text) = &read.key_condition_expression else {
            return Err(Refusal::validation(
                "Either the KeyConditions or KeyConditionExpression parameter must be specified in the request.",
            ));
        };
        let condition = Parser::new("KeyConditionExpression", text, &placeholders)?.condition()?;
        let wanted = source.wanted(condition)?;
        let pick = Pick::new(read, &source, &placeholders, true)?;
        let forward = read.scan_index_forward.unwrap_or(true);
        let (mut low, mut high) = wanted.bounds();
        if let Some(start) = &read.exclusive_start_key {
            let (partition, position) = source.start(start)?;
            let inside = match (&low, &high) {
                (Bound::Included(low) | Bound::Excluded(low), _) if position < *low => false,
                (_, Bound::Included(high) | Bound::Excluded(high)) if position > *high => false,
                _ => partition == wanted.partition,
            };
            if !inside {
                return Err(Refusal::validation(
                    "The provided starting key is outside query boundaries based on provided conditions",
                ));
            }
            *(if forward { &mut low } else { &mut high }) = Bound::Excluded(position);
        }
        let Some(rows) = source.rows.get(&wanted.partition) else { return pick.page(&source, std::iter::empty()) };
        if let (Bound::Included(a) | Bound::Excluded(a), Bound::Included(b) | Bound::Excluded(b)) = (&low, &high)
            && (a > b || (a == b && matches!((&low, &high), (Bound::Excluded(_), _) | (_, Bound::Excluded(_)))))
        {
            return pick.page(&source, std::iter::empty());
        }
        let in_range = |item: &&Arc<Item>| wanted.sort.as_ref().is_none_or(|sort| sort.holds(&item.attributes));
        let range = rows.range((low, high)).map(|(_, item)| item);
        if forward {
            pick.page(&source, range.skip_while(|item| !in_range(item)).take_while(in_range))
        } else {
            pick.page(&source, range.rev().skip_while(|item| !in_range(item)).take_while(in_range))
        }
    }

    pub fn scan(&mut self, read: &Read) -> Answer<Vec<u8>> {
        self.table_mut(&read.table_name)?.catch_up();
        let placeholders = Placeholders::new(&read.expression_attribute_names, &read.expression_attribute_values)?;
        let source = self.source(read)?;
        if read.key_condition_expression.is_some() || read.scan_index_forward.is_some() {
            return Err(Refusal::validation("A Scan has neither KeyConditionExpression nor ScanIndexForward"));
        }
        let pick = Pick::new(read, &source, &placeholders, false)?;
        let (segment, segments) = match (read.segment, read.total_segments) {
            (None, None) => (0, 1),
            (Some(segment), Some(total)) if segment < total => (segment, total),
            _ => {
                return Err(Refusal::validation(
                    "The Segment parameter is zero-based and must be less than parameter TotalSegments",
                ));
            }
        };
        let start = read.exclusive_start_key.as_ref().map(|start| source.start(start)).transpose()?;
        let from = start.as_ref().map_or(Bound::Unbounded, |(partition, _)| Bound::Included(partition.clone()));
        let rows = source
            .rows
            .range((from, Bound::Unbounded))
            .filter(|(partition, _)| partition.hash % segments == segment)
            .flat_map(|(partition, rows)| {
                let from = match &start {
                    Some((first, position)) if first == partition => Bound::Excluded(position.clone()),
                    _ => Bound::Unbounded,
                };
                rows.range((from, Bound::Unbounded)).map(|(_, item)| item)
            });
        pick.page(&source, rows)
    }

    fn source(&self, read: &Read) -> Answer<Source<'_>> {
        let table = self.table(&read.table_name)?;
        let Some(name) = &read.index_name else {
            return Ok(Source { table, index: None, schema: &table.schema, rows: &table.rows });
        };
        let index = table.index(name)?;
        if index.global && read.consistent_read {
            return Err(Refusal::validation("Consistent reads are not supported on global secondary indexes"));
        }
        Ok(Source { table, index: Some(index), schema: &index.schema, rows: &index.rows })
    }
}

impl<'t> Source<'t> {
    /// Attributes of the keys: the table's, and the index's.
    fn key_names(&self) -> Vec<&'t str> {
        let mut names = self.table.schema.names();
        names.extend(self.schema.names().into_iter().filter(|name| !self.table.schema.names().contains(name)));
        names
    }

    /// Where the row stands that an ExclusiveStartKey names.
    fn start(&self, start: &Attributes) -> Answer<(Partition, Position)> {
        let wrong = || Refusal::validation("The provided starting key is invalid");
        let names = self.key_names();
        if start.len() != names.len() || !names.iter().all(|name| start.contains_key(*name)) {
            return Err(wrong());
        }
        let key = self.table.schema.key_of_item(start).map_err(|_| wrong())?;
        let (partition, sort) = self.schema.place(start).ok_or_else(wrong)?;
        Ok((partition, (sort, self.index.map_or(Tie::First, |_| Tie::Key(key)))))
    }

    /// Takes a key condition apart: the partition key equals a value, and at most one condition on the sort key.
    fn wanted<'a>(&self, condition: Condition<'a>) -> Answer<Wanted<'a>> {
        let (first, second) = match condition {
            Condition::And(first, second) => (*first, Some(*second)),
            single => (single, None),
        };
        let is_partition = |condition: &Condition<'a>| condition.roots() == [self.schema.partition.name.as_str()];
        let (partition, sort) = match second {
            None => (first, None),
            Some(second) if is_partition(&first) => (first, Some(second)),
            Some(second) => (second, Some(first)),
        };
        let missed = |attribute: &KeyAttribute| {
            Refusal::validation(format!("Query condition missed key schema element: {}", attribute.name))
        };
        let equals = match partition {
            Condition::Compare(Operand::Path(path), Comparator::Equal, Operand::Value(value))
                if path.steps.is_empty() && path.root == self.schema.partition.name =>
            {
                value
            }
            Condition::Compare(Operand::Path(path), ..) if path.root == self.schema.partition.name => {
                return Err(Refusal::validation("Query key condition not supported"));
            }
            _ => return Err(missed(&self.schema.partition)),
        };
        let key = self.typed(&self.schema.partition, equals)?;
        if let Some(condition) = &sort {
            let attribute =
                self.schema.sort.as_ref().ok_or_else(|| Refusal::validation("Query key condition not supported"))?;
            let (path, values) = match condition {
                Condition::Compare(Operand::Path(path), comparator, Operand::Value(value))
                    if *comparator != Comparator::NotEqual =>
                {
                    (path, vec![*value])
                }
                Condition::Between(Operand::Path(path), Operand::Value(low), Operand::Value(high)) => {
                    (path, vec![*low, *high])
                }
                Condition::BeginsWith(Operand::Path(path), Operand::Value(start)) => (path, vec![*start]),
                Condition::And(..) => {
                    return Err(Refusal::validation("Conditions can be of length 1 or 2 only"));
                }
                _ => return Err(Refusal::validation("Query key condition not supported")),
            };
            if path.root != attribute.name || !path.steps.is_empty() {
                return Err(missed(attribute));
            }
            for value in values {
                self.typed(attribute, value)?;
            }
        }
        Ok(Wanted { partition: Partition::of(key), sort })
    }

    fn typed(&self, attribute: &KeyAttribute, value: &Value) -> Answer<Scalar> {
        let scalar = Scalar::of(value).filter(|_| value.kind() == attribute.kind);
        let scalar =
            scalar.ok_or_else(|| Refusal::invalid_value("Condition parameter type does not match schema type"))?;
        match &scalar {
            Scalar::S(text) if text.is_empty() => {
                let message = "The AttributeValue for a key attribute cannot contain an empty string value. Key";
                let message = format!("One or more parameter values are not valid. {message}: {}", attribute.name);
                Err(Refusal::validation(message))
            }
            _ => Ok(scalar),
        }
    }
}

impl Wanted<'_> {
    /// The bounds of the rows. A prefix has no upper one: the rows past it are seen to be past it.
    fn bounds(&self) -> (Bound<Position>, Bound<Position>) {
        let first = |value: &Value| (Scalar::of(value), Tie::First);
        let last = |value: &Value| (Scalar::of(value), Tie::Last);
        match &self.sort {
            Some(Condition::Compare(_, comparator, Operand::Value(value))) => match comparator {
                Comparator::Equal => (Bound::Included(first(value)), Bound::Excluded(last(value))),
                Comparator::Less => (Bound::Unbounded, Bound::Excluded(first(value))),
                Comparator::LessOrEqual => (Bound::Unbounded, Bound::Excluded(last(value))),
                Comparator::Greater => (Bound::Excluded(last(value)), Bound::Unbounded),
                Comparator::GreaterOrEqual => (Bound::Included(first(value)), Bound::Unbounded),
                Comparator::NotEqual => (Bound::Unbounded, Bound::Unbounded),
            },
            Some(Condition::Between(_, Operand::Value(low), Operand::Value(high))) => {
                (Bound::Included(first(low)), Bound::Excluded(last(high)))
            }
            Some(Condition::BeginsWith(_, Operand::Value(start))) => (Bound::Included(first(start)), Bound::Unbounded),
            _ => (Bound::Unbounded, Bound::Unbounded),
        }
    }
}

/// What a page takes of the rows.
struct Pick<'a> {
    limit: usize,
    filter: Option<Condition<'a>>,
    projection: Option<PathSet>,
    count_only: bool,
    whole: bool,
}

impl<'a> Pick<'a> {
    /// Reads what is left of the expressions, and sees that all placeholders were used.
    fn new(read: &Read, source: &Source<'_>, placeholders: &Placeholders<'a>, query: bool) -> Answer<Self> {
        let filter = match &read.filter_expression {
            Some(text) => Some(Parser::new("FilterExpression", text, placeholders)?.condition()?),
            None => None,
        };
        if query
            && let Some(key) =
                filter.iter().flat_map(Condition::roots).find(|root| source.schema.names().contains(root))
        {
            let message = "Filter Expression can only contain non-primary key attributes: Primary key attribute";
            return Err(Refusal::validation(format!("{message}: {key}")));
        }
        let projection = read.projection_expression.as_ref().map(|text| paths(text, placeholders)).transpose()?;
        placeholders.all_used()?;
        let global_part = source.index.filter(|index| index.global && index.held.is_some());
        if let (Some(index), Some(projection)) = (global_part, &projection)
            && let Some(name) =
                projection.roots().find(|name| !index.held.as_ref().is_some_and(|held| held.contains(*name)))
        {
            let message = format!("Global secondary index {} does not project [{name}]", index.name);
            return Err(Refusal::invalid_value(message));
        }
        let whole = match read.select.as_deref() {
            None | Some("ALL_PROJECTED_ATTRIBUTES" | "COUNT") => false,
            Some("SPECIFIC_ATTRIBUTES") if projection.is_some() => false,
            Some("ALL_ATTRIBUTES") => match global_part {
                Some(index) => {
                    let message = "Select type ALL_ATTRIBUTES is not supported for global secondary index";
                    let message = format!("{message} {} because its projection type is not ALL", index.name);
                    return Err(Refusal::invalid_value(message));
                }
                None => true,
            },
            Some(other) => return Err(Refusal::validation(format!("Select type {other} is not supported here"))),
        };
        let limit = read.limit.unwrap_or(usize::MAX);
        if limit == 0 {
            return Err(Refusal::validation(
                "Value '0' at 'limit' failed to satisfy constraint: Member must have value greater than or equal to 1",
            ));
        }
        Ok(Self { limit, filter, projection, count_only: read.select.as_deref() == Some("COUNT"), whole })
    }

    /// Like the service, a page that ends at its limit names its last key, whether or not anything follows.
    fn page<'t>(&self, source: &Source<'_>, rows: impl Iterator<Item = &'t Arc<Item>>) -> Answer<Vec<u8>> {
        let mut items: Vec<Cow<'t, Attributes>> = Vec::new();
        let (mut scanned, mut bytes, mut count) = (0, 0, 0);
        let mut last = None;
        for item in rows {
            scanned += 1;
            bytes += item.size;
            let shown = match source.index {
                Some(index) if !self.whole && index.held.is_some() => Cow::Owned(index.shown(&item.attributes)),
                _ => Cow::Borrowed(&item.attributes),
            };
            if self.filter.as_ref().is_none_or(|filter| filter.holds(&shown)) {
                count += 1;
                if !self.count_only {
                    items.push(match &self.projection {
                        // A local index fetches from its table what it does not hold.
                        Some(paths) => Cow::Owned(paths.project(&item.attributes)),
                        None => shown,
                    });
                }
            }
            if scanned == self.limit || bytes >= PAGE_BYTES_MAX {
                let names = source.key_names();
                let value = |name: &str| Some((name.to_owned(), item.attributes.get(name)?.clone()));
                last = Some(names.into_iter().filter_map(value).collect());
                break;
            }
        }
        let items = (!self.count_only).then_some(items);
        answer(&Page { items, count, scanned_count: scanned, last_evaluated_key: last })
    }
}
