//! From the layers to a [`Config`]: defaults, then the file, the environment and the flags, each over the one before.
//!
//! What the layers say is collected by dotted key (`pool.sandboxes_max`) with the place it came from, so that every problem is
//! told at once and each names its key and its source. The keys there are, and the type of each, are read off
//! `Config::default()`: a new field of [`Config`] needs nothing here. Nothing here reads the process's environment or arguments;
//! they are handed in.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::{self, Write};
use std::path::Path;

use serde::Deserialize;
use toml::Value;
use toml::de::{DeTable, DeValue};

use super::Config;
use super::validate::validate;

/// Environment names of the client and of the choice of a file: not configuration keys.
const NOT_KEYS: [&str; 4] = ["FAASD_URL", "FAASD_API_KEY", "FAASD_CA_FILE", ENV_FILE];
/// Names that begin so belong to the test-suite and the benches.
const NOT_KEYS_PREFIXES: [&str; 2] = ["FAASD_TEST_", "FAASD_BENCH_"];
/// Names the configuration file where no `--config` does.
pub const ENV_FILE: &str = "FAASD_CONFIG";
/// A configuration file is read whole; one larger than this is a mistake.
const FILE_BYTES_MAX: u64 = 1024 * 1024;
/// Keys whose values are never shown.
const SECRETS: [&str; 5] = ["http.metrics_token", "secrets.key", "auth.jwt.secret", "redis.password", "fleet.secret"];

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    Default,
    File { name: String, line: usize },
    Env(String),
    Flag(String),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Default => f.write_str("default"),
            Source::File { name, line: 0 } => f.write_str(name),
            Source::File { name, line } => write!(f, "{name} line {line}"),
            Source::Env(name) => write!(f, "environment {name}"),
            Source::Flag(name) => write!(f, "flag {name}"),
        }
    }
}

/// One thing that is wrong with the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Dotted; empty where no key is to blame.
    pub key: String,
    pub what: String,
    pub source: Source,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, what, source } = self;
        let line = if key.is_empty() { format!("{what} ({source})") } else { format!("{key}: {what} ({source})") };
        // One line, also where a key or a value holds more.
        line.chars()
            .try_for_each(|c| if c.is_control() { write!(f, "{}", c.escape_default()) } else { f.write_char(c) })
    }
}

/// All that is wrong, one problem a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&lines.join("\n"))
    }
}

impl std::error::Error for Problems {}

/// A value given by a flag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlagValue {
    /// As the user wrote it: `--listen`.
    pub flag: String,
    /// Dotted: `listen`.
    pub key: String,
    pub text: String,
}

/// What the layers said, by dotted key, later layers over earlier ones.
#[derive(Debug)]
pub struct RawConfig {
    schema: BTreeMap<String, Value>,
    values: BTreeMap<String, (Value, Source)>,
    problems: Vec<Problem>,
}

impl Default for RawConfig {
    fn default() -> Self {
        Self { schema: flatten(&Config::default()), values: BTreeMap::new(), problems: Vec::new() }
    }
}

/// Reads all layers. `file` comes from `--config`; without it `FAASD_CONFIG` may name one.
///
/// # Errors
/// Every problem found, in all layers.
pub fn load(
    file: Option<&Path>,
    env: impl IntoIterator<Item = (OsString, OsString)>,
    flags: &[FlagValue],
) -> Result<Config, Problems> {
    let env: Vec<_> = env.into_iter().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"FAASD_")).collect();
    let named = env.iter().find(|(name, _)| name == ENV_FILE).map(|(_, path)| Path::new(path));
    let mut raw = RawConfig::default();
    if let Some(path) = file.or(named) {
        raw.read_file(path);
    }
    raw.env(env);
    raw.flags(flags);
    raw.build()
}

impl RawConfig {
    fn read_file(&mut self, path: &Path) {
        let name = path.display().to_string();
        let text = std::fs::metadata(path).and_then(|meta| match meta.len() {
            0..=FILE_BYTES_MAX => std::fs::read_to_string(path),
            _ => Err(std::io::Error::other("it is larger than 1 MiB")),
        });
        match text {
            Ok(text) => self.file(&name, &text),
            Err(error) => {
                let what = format!("the configuration file can't be read: {error}");
                self.problem("", what, Source::File { name, line: 0 });
            }
        }
    }

    /// Takes in the text of a TOML file.
    pub fn file(&mut self, name: &str, text: &str) {
        let (document, errors) = DeTable::parse_recoverable(text);
        for error in &errors {
            let line = error.span().map_or(0, |span| line_of(text, span.start));
            self.problem("", error.message().to_owned(), Source::File { name: name.to_owned(), line });
        }
        self.table("", document.get_ref(), &|at| Source::File { name: name.to_owned(), line: line_of(text, at) });
    }

    fn table(&mut self, prefix: &str, table: &DeTable<'_>, source: &dyn Fn(usize) -> Source) {
        for (key, value) in table {
            let dotted =
                if prefix.is_empty() { key.get_ref().to_string() } else { format!("{prefix}.{}", key.get_ref()) };
            let here = source(key.span().start);
            match value.get_ref() {
                _ if self.schema.contains_key(&dotted) => {
                    match Value::deserialize(toml::de::ValueDeserializer::from(value.clone())) {
                        Ok(plain) => self.set(dotted, plain, here),
                        Err(error) => self.problem(&dotted, error.message().to_owned(), here),
                    }
                }
                DeValue::Table(inner) if self.is_section(&dotted) => self.table(&dotted, inner, source),
                _ if self.is_section(&dotted) => {
                    self.problem(&dotted, format!("is a section: write it as [{dotted}]"), here);
                }
                _ => self.unknown(&dotted, here),
            }
        }
    }

    /// Takes in `FAASD_…` variables; others are passed over.
    pub fn env(&mut self, vars: impl IntoIterator<Item = (OsString, OsString)>) {
        for (name, value) in vars {
            let name = name.to_string_lossy().into_owned();
            let Some(rest) = name.strip_prefix("FAASD_") else { continue };
            if NOT_KEYS.contains(&name.as_str()) || NOT_KEYS_PREFIXES.iter().any(|prefix| name.starts_with(prefix)) {
                continue;
            }
            let key = rest.to_ascii_lowercase().replace("__", ".");
            let source = Source::Env(name);
            match value.to_str() {
                Some(text) => self.text(&key, text, source),
                None => self.problem(&key, "is not UTF-8".to_owned(), source),
            }
        }
    }

    /// Takes in flags.
    pub fn flags(&mut self, flags: &[FlagValue]) {
        for FlagValue { flag, key, text } in flags {
            self.text(key, text, Source::Flag(flag.clone()));
        }
    }

    /// Reads `text` as the type that the key has.
    fn text(&mut self, key: &str, text: &str, source: Source) {
        let Some(kind) = self.schema.get(key) else { return self.unknown(key, source) };
        match parse_as(kind, text) {
            Ok(value) => self.set(key.to_owned(), value, source),
            Err(what) => self.problem(key, what, source),
        }
    }

    fn set(&mut self, key: String, value: Value, source: Source) {
        self.values.insert(key, (value, source));
    }

    fn problem(&mut self, key: &str, what: String, source: Source) {
        self.problems.push(Problem { key: key.to_owned(), what, source });
    }

    fn is_section(&self, dotted: &str) -> bool {
        self.schema.keys().any(|key| key.strip_prefix(dotted).is_some_and(|rest| rest.starts_with('.')))
    }

    fn unknown(&mut self, key: &str, source: Source) {
        let leaf = |dotted: &str| dotted.rsplit('.').next().unwrap_or(dotted).replace('_', "");
        let wanted = leaf(key);
        let meant = self.schema.keys().find(|known| leaf(known) == wanted);
        let what = match meant {
            Some(known) => format!("there is no such key; did you mean `{known}`?"),
            None => "there is no such key; `faasd config show` lists them all".to_owned(),
        };
        self.problem(key, what, source);
    }

    /// The configuration, or everything that is wrong with it.
    ///
    /// # Errors
    /// Every problem of every layer, and every rule broken by the values that could be read.
    pub fn build(mut self) -> Result<Config, Problems> {
        let mut table = toml::Table::new();
        for (key, (value, source)) in &self.values {
            let mut alone = toml::Table::new();
            insert(&mut alone, key, value.clone());
            match Config::deserialize(Value::Table(alone)) {
                Ok(_) => insert(&mut table, key, value.clone()),
                Err(error) => {
                    let what = match SECRETS.contains(&key.as_str()) {
                        // The parser would show the value.
                        true => "must be a text".to_owned(),
                        false => error.message().lines().next().unwrap_or_default().to_owned(),
                    };
                    self.problems.push(Problem { key: key.clone(), what, source: source.clone() });
                }
            }
        }
        let config = match Config::deserialize(Value::Table(table)) {
            Ok(config) => config,
            Err(error) => {
                self.problem("", error.message().to_owned(), Source::Default);
                return Err(Problems(self.problems));
            }
        };
        for (key, what) in validate(&config) {
            if self.problems.iter().any(|known| known.key == key) {
                continue;
            }
            let source = self.values.get(key).map_or(Source::Default, |(_, source)| source.clone());
            self.problem(key, what, source);
        }
        if self.problems.is_empty() { Ok(config) } else { Err(Problems(self.problems)) }
    }
}

/// The configuration as TOML, secrets hidden.
pub fn render(config: &Config) -> String {
    let mut table = match toml::Table::try_from(config) {
        Ok(table) => table,
        Err(error) => return format!("# the configuration can't be shown: {error}\n"),
    };
    for (key, value) in flatten(config) {
        if SECRETS.contains(&key.as_str()) && value.as_str() != Some("") {
            insert(&mut table, &key, Value::String("***".to_owned()));
        }
    }
    table.to_string()
}

/// The keys that are not at their default, each with its value; secrets hidden.
pub fn changed(config: &Config) -> BTreeMap<String, String> {
    let defaults = defaults();
    let differs = |(key, value): &(String, Value)| defaults.get(key) != Some(value);
    let shown = |(key, value): (String, Value)| {
        let text = if SECRETS.contains(&key.as_str()) { "***".to_owned() } else { value.to_string() };
        (key, text)
    };
    flatten(config).into_iter().filter(differs).map(shown).collect()
}

/// Every key with its default, by dotted name.
pub fn defaults() -> BTreeMap<String, Value> {
    flatten(&Config::default())
}

fn flatten(config: &Config) -> BTreeMap<String, Value> {
    fn walk(prefix: &str, table: toml::Table, into: &mut BTreeMap<String, Value>) {
        for (key, value) in table {
            let dotted = if prefix.is_empty() { key } else { format!("{prefix}.{key}") };
            match value {
                Value::Table(inner) => walk(&dotted, inner, into),
                value => {
                    into.insert(dotted, value);
                }
            }
        }
    }
    let mut flat = BTreeMap::new();
    if let Ok(table) = toml::Table::try_from(config) {
        walk("", table, &mut flat);
    }
    flat
}

/// Puts `value` at the dotted `key`, making the sections on the way.
fn insert(table: &mut toml::Table, key: &str, value: Value) {
    let Some((section, rest)) = key.split_once('.') else {
        table.insert(key.to_owned(), value);
        return;
    };
    let inner = table.entry(section).or_insert_with(|| Value::Table(toml::Table::new()));
    if let Value::Table(inner) = inner {
        insert(inner, rest, value);
    }
}

fn parse_as(kind: &Value, text: &str) -> Result<Value, String> {
    match kind {
        Value::Integer(_) => text
            .replace('_', "")
            .parse()
            .map(Value::Integer)
            .map_err(|_| format!("must be a whole number, not `{text}`")),
        Value::Float(_) => text.parse().map(Value::Float).map_err(|_| format!("must be a number, not `{text}`")),
        Value::Boolean(_) => match text {
            "true" | "1" => Ok(Value::Boolean(true)),
            "false" | "0" => Ok(Value::Boolean(false)),
            _ => Err(format!("must be true or false, not `{text}`")),
        },
        Value::Array(_) => {
            let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
            Ok(Value::Array(items.map(|item| Value::String(item.to_owned())).collect()))
        }
        _ => Ok(Value::String(text.to_owned())),
    }
}

/// Lines count from 1.
fn line_of(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1
}

#[cfg(test)]
#[path = "load_tests.rs"]
mod tests;
