//! Tables for people: columns as wide as their widest cell, two spaces between.

use serde_json::Value;

/// Wider cells are cut: a description or an error must not break the rows.
const CELL_CHARS_MAX: usize = 60;

/// Rows under their headings; a line that says so where there are none.
pub fn render(headings: &[&str], rows: &[Vec<String>]) -> String {
    if rows.is_empty() {
        return "(none)\n".to_owned();
    }
    let headings: Vec<String> = headings.iter().map(ToString::to_string).collect();
    let cut = |cell: &String| {
        let line = cell.lines().next().unwrap_or_default();
        if line.chars().count() <= CELL_CHARS_MAX && line.len() == cell.len() {
            return line.to_owned();
        }
        line.chars().take(CELL_CHARS_MAX - 1).chain(['…']).collect()
    };
    let rows: Vec<Vec<String>> =
        std::iter::once(&headings).chain(rows).map(|row| row.iter().map(cut).collect()).collect();
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|c| c.chars().count()).max();
    let widths: Vec<usize> = (0..headings.len()).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in &rows {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// A JSON value as a cell: text without quotes, nothing for null.
pub fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Number(number) => match number.as_f64() {
            Some(float) if number.is_f64() => format!("{float:.1}"),
            _ => number.to_string(),
        },
        Value::Array(items) => items.iter().map(cell).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

/// One row for each of the answer's items, a column for each field.
pub fn rows(items: &[Value], fields: &[&str]) -> Vec<Vec<String>> {
    items.iter().map(|item| fields.iter().map(|field| cell(&item[*field])).collect()).collect()
}

/// A JSON value over several lines, for `--json` and for results.
pub fn pretty(value: &Value) -> String {
    // A `Value` has string keys alone, so it can always be written.
    serde_json::to_string_pretty(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn columns_line_up() {
        let rows = vec![vec!["a".to_owned(), "1".to_owned()], vec!["long".to_owned(), "two\nlines".to_owned()]];
        assert_eq!(render(&["NAME", "N"], &rows), "NAME  N\na     1\nlong  two…\n");
        assert_eq!(render(&["NAME"], &[]), "(none)\n");
    }

    #[test]
    fn long_cells_are_cut() {
        let text = render(&["X"], &[vec!["y".repeat(100)]]);
        assert!(text.lines().all(|line| line.chars().count() <= CELL_CHARS_MAX), "{text}");
    }

    #[test]
    fn values_become_cells() {
        let item = json!({"a": "x", "b": null, "c": 3, "d": 1.25, "e": ["p", "q"]});
        assert_eq!(rows(&[item], &["a", "b", "c", "d", "e", "f"]), [["x", "", "3", "1.2", "p,q", ""]]);
    }
}
