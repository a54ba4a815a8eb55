//! The tables as data: what `faasd admin create-tables` makes, what Terraform is written from, and what the rest of this room asks.
//!
//! All key attributes are strings. All tables are billed by request. `ttl` is a time in seconds after which DynamoDB deletes an item,
//! some day: whoever reads looks at the clock as well.

/// A table. Its whole name is the configured prefix, `-` and this name.
#[derive(Debug)]
pub struct Table {
    pub name: &'static str,
    pub hash: &'static str,
    pub range: Option<&'static str>,
    pub indexes: &'static [Index],
    /// Whether items go by themselves, by the attribute [`TTL`].
    pub expires: bool,
}

/// A global secondary index, in order of its range.
#[derive(Debug)]
pub struct Index {
    pub name: &'static str,
    pub hash: &'static str,
    pub range: &'static str,
    /// Whether it holds whole items, or keys alone.
    pub whole: bool,
}

pub const TTL: &str = "ttl";

/// One item an invocation. `body` is the record as JSON; one too large for an item lies among the artifacts.
pub const INVOCATIONS: Table = Table {
    name: "invocations",
    hash: "id",
    range: None,
    indexes: &[BY_OWNER, BY_FUNCTION, BY_TIME, BY_STATE, BY_FAILURE],
    expires: true,
};

pub const BY_OWNER: Index = Index { name: "by_owner", hash: "of_owner", range: "seq", whole: false };
pub const BY_FUNCTION: Index = Index { name: "by_function", hash: "of_function", range: "seq", whole: false };
/// Everybody's.
pub const BY_TIME: Index = Index { name: "by_time", hash: "of_all", range: "seq", whole: false };
/// An owner's that are open, and those that ended in each way but success. A call that succeeds at once never comes into it.
pub const BY_STATE: Index = Index { name: "by_state", hash: "of_state", range: "seq", whole: false };
/// A function's that ended in each way but success.
pub const BY_FAILURE: Index = Index { name: "by_failure", hash: "of_failure", range: "seq", whole: false };

/// One item for each `Idempotency-Key` in use, named by a digest.
pub const IDEMPOTENCY: Table = Table { name: "idempotency", hash: "key", range: None, indexes: &[], expires: true };

/// Functions, their names, their versions and how many there are:
///
/// | `pk` | `sk` | |
/// |---|---|---|
/// | `f#<id>` | `-` | the function |
/// | `f#<id>` | `v#<number>` | a version |
/// | `n#<owner>` | name | the function again, under the name that is its owner's |
/// | `count` | owner | how many functions that owner has |
pub const FUNCTIONS: Table =
    Table { name: "functions", hash: "pk", range: Some("sk"), indexes: &[BY_NAME], expires: true };

/// Everybody's, in order of name.
pub const BY_NAME: Index = Index { name: "by_name", hash: "everybody", range: "place", whole: true };

/// | `pk` | `sk` | |
/// |---|---|---|
/// | `key` | id | the key |
/// | `secret#<sha256>` | `-` | the key again, as whoever shows its secret asks for it |
/// | `of#<function>` | id | that it is an access key of this function |
/// | `first` | `-` | the first key that was made, so that it is one |
/// | `lock` | name | who holds that lock of the controllers; here, because workers may not touch this table |
pub const KEYS: Table = Table { name: "keys", hash: "pk", range: Some("sk"), indexes: &[], expires: false };

/// What the policies have learned: `of` is `<function>#-` of the function, `<function>#v` of its latest version.
pub const LESSONS: Table = Table { name: "lessons", hash: "share", range: Some("of"), indexes: &[], expires: true };

pub const DEAD_LETTERS: Table =
    Table { name: "dead-letters", hash: "id", range: None, indexes: &[BY_OWNER, BY_TIME], expires: true };

pub const TABLES: [&Table; 6] = [&INVOCATIONS, &IDEMPOTENCY, &FUNCTIONS, &KEYS, &LESSONS, &DEAD_LETTERS];

impl Table {
    pub fn full_name(&self, prefix: &str) -> String {
        format!("{prefix}-{}", self.name)
    }

    /// The attributes that are keys of the table or of an index, each once.
    pub fn key_attributes(&self) -> Vec<&'static str> {
        let mut all: Vec<_> = [Some(self.hash), self.range].into_iter().flatten().collect();
        all.extend(self.indexes.iter().flat_map(|index| [index.hash, index.range]));
        all.sort_unstable();
        all.dedup();
        all
    }
}
