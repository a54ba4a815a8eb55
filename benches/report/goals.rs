//! The goals of `benches/goals.toml`, and whether rows reach them.

use std::fs;
use std::path::Path;

use anyhow::Context;
use serde::{Deserialize, Serialize};

use super::rows::{Absent, Row};

#[derive(Deserialize)]
struct File {
    goal: Vec<Goal>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Goal {
    what: String,
    row: String,
    most: Option<f64>,
    least: Option<f64>,
    unit: String,
}

/// A goal beside what was measured.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Judged {
    pub what: String,
    /// `≤ 0.13 ms`.
    pub goal: String,
    pub row: String,
    /// None where it was not measured; `why` says what is known of that.
    pub measured: Option<Row>,
    pub why: Option<String>,
    pub reached: Option<bool>,
}

pub fn read(root: &Path) -> anyhow::Result<Vec<Goal>> {
    let path = root.join("benches/goals.toml");
    let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    Ok(toml::from_str::<File>(&text)?.goal)
}

impl Goal {
    pub fn judge(&self, rows: &[Row], absent: &[Absent]) -> Judged {
        let measured = rows.iter().find(|row| row.row == self.row).cloned();
        let reached = measured.as_ref().map(|row| self.reached(row.median));
        // A bench names the case that it can't measure, or a row of it.
        let known = absent.iter().find(|absent| self.row.starts_with(&absent.row));
        let why = match (&measured, known) {
            (Some(_), _) => None,
            (None, known) => Some(known.map_or("no bench told it", |absent| &absent.why).to_owned()),
        };
        Judged { what: self.what.clone(), goal: self.text(), row: self.row.clone(), measured, why, reached }
    }

    fn reached(&self, value: f64) -> bool {
        self.most.is_none_or(|most| value <= most) && self.least.is_none_or(|least| value >= least)
    }

    fn text(&self) -> String {
        let bounds = [("≤", self.most), ("≥", self.least)];
        let stated =
            bounds.iter().filter_map(|(sign, bound)| bound.map(|bound| format!("{sign} {bound} {}", self.unit)));
        stated.collect::<Vec<_>>().join(", ")
    }
}
