//! The environment that a function's deployer gives it. Its values may be secrets: nothing here shows, logs or echoes one.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Deref;

use serde::de::{Deserialize, Deserializer, Error, IgnoredAny};
use serde::ser::{Serialize, Serializer};

/// Variables by name. Written as it is by whoever serialises it, so that is for the store's vault and the sandbox alone; a
/// `Debug` of it shows names.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Env(BTreeMap<String, String>);

impl Env {
    /// The variables, to be given to the sandbox.
    pub fn into_values(self) -> BTreeMap<String, String> {
        self.0
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

impl Deref for Env {
    type Target = BTreeMap<String, String>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl From<BTreeMap<String, String>> for Env {
    fn from(values: BTreeMap<String, String>) -> Self {
        Self(values)
    }
}

impl<const N: usize> From<[(String, String); N]> for Env {
    fn from(values: [(String, String); N]) -> Self {
        Self(values.into())
    }
}

impl fmt::Debug for Env {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.names().map(|name| (name, format_args!("…")))).finish()
    }
}

impl Serialize for Env {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

/// One value as it was sent. What is no text is not looked at: an error that shows it would show a secret.
#[derive(serde::Deserialize)]
#[serde(untagged)]
enum Sent<T> {
    Good(T),
    Other(IgnoredAny),
}

impl<'de> Deserialize<'de> for Env {
    /// Of an object of texts.
    ///
    /// # Errors
    /// Names the variable that is no text, and shows no value.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Sent::Good(sent) = Sent::<BTreeMap<String, Sent<String>>>::deserialize(deserializer)? else {
            return Err(D::Error::custom("it must be an object of texts"));
        };
        let text = |(name, value)| match value {
            Sent::Good(value) => Ok((name, value)),
            Sent::Other(_) => Err(D::Error::custom(format_args!("the value of {name:.64} must be a text"))),
        };
        sent.into_iter().map(text).collect::<Result<_, _>>().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_debug_nor_an_error_shows_a_value() {
        let env: Env = serde_json::from_str(r#"{"TOKEN": "s3cret", "B": "s3cret"}"#).unwrap();
        assert_eq!(env["TOKEN"], "s3cret");
        let shown = format!("{env:?} {env:#?}");
        assert!(shown.contains("TOKEN") && !shown.contains("s3cret"), "{shown}");
        for wrong in
            [r#""s3cret""#, r#"["s3cret"]"#, "5318", r#"{"TOKEN": 5318}"#, r#"{"TOKEN": {"s3cret": "s3cret"}}"#]
        {
            let error = serde_json::from_str::<Env>(wrong).unwrap_err().to_string();
            assert!(!error.contains("s3cret") && !error.contains("5318"), "{error}");
        }
        let error = serde_json::from_str::<Env>(r#"{"TOKEN": null}"#).unwrap_err().to_string();
        assert!(error.contains("TOKEN"), "{error}");
    }
}
