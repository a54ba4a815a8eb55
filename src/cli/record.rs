//! An invocation record on a terminal: the result on stdout, all else on stderr.

use serde_json::Value;

use super::Failure;
use super::table::{cell, pretty};

/// Prints a record: the whole as JSON, or its result with what was printed and what went wrong beside it.
///
/// # Errors
/// [`Failure::Told`] if the function ended otherwise than well.
pub fn show(record: &Value, json: bool, with_output: bool) -> Result<(), Failure> {
    if json {
        println!("{}", pretty(record));
        return verdict(record);
    }
    if with_output {
        for stream in ["stdout", "stderr"] {
            let text = record[stream].as_str().unwrap_or_default();
            if !text.is_empty() {
                eprintln!("{}", text.trim_end_matches('\n'));
            }
        }
    }
    if record["status"] == "SUCCESS" {
        println!("{}", pretty(&record["result"]));
    }
    for line in explain(record) {
        eprintln!("{line}");
    }
    verdict(record)
}

/// Whether the invocation went well, or goes on.
pub fn verdict(record: &Value) -> Result<(), Failure> {
    match record["status"].as_str() {
        Some("SUCCESS" | "QUEUED" | "RUNNING") => Ok(()),
        _ => Err(Failure::Told),
    }
}

/// Whether nothing more will happen to it.
pub fn is_final(record: &Value) -> bool {
    !matches!(record["status"].as_str(), Some("QUEUED" | "RUNNING") | None)
}

/// What happened, in a few lines: the outcome and its cost, the error and where it came from.
fn explain(record: &Value) -> Vec<String> {
    let mut facts = vec![cell(&record["status"])];
    if let Some(start) = record["startType"].as_str() {
        facts.push(start.to_ascii_lowercase());
    }
    if let Some(ms) = record["durationMs"].as_f64() {
        facts.push(format!("{ms:.2} ms"));
    }
    if let Some(bytes) = record["peakMemoryBytes"].as_f64() {
        facts.push(format!("{:.1} of {} MB", bytes / (1024.0 * 1024.0), cell(&record["allocatedMemoryMb"])));
    }
    let mut lines = vec![format!("{} (request {})", facts.join(", "), cell(&record["requestId"]))];
    if !record["errorType"].is_null() {
        lines.push(format!("{}: {}", cell(&record["errorType"]), cell(&record["errorMessage"])));
    }
    let frames = record["stackTrace"].as_array().map(Vec::as_slice).unwrap_or_default();
    lines.extend(frames.iter().map(|frame| format!("  {}", cell(frame).trim_end())));
    if let Some(tip) = record["optimizationTip"].as_str() {
        lines.push(tip.to_owned());
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_verdict_is_the_functions() {
        for (status, good, last) in [
            ("SUCCESS", true, true),
            ("QUEUED", true, false),
            ("RUNNING", true, false),
            ("FAILED", false, true),
            ("TIMEOUT", false, true),
            ("CANCELLED", false, true),
            ("DEAD", false, true),
        ] {
            let record = json!({"status": status});
            assert_eq!((verdict(&record).is_ok(), is_final(&record)), (good, last), "{status}");
        }
    }

    #[test]
    fn a_failure_is_explained_with_its_place() {
        let record = json!({
            "status": "FAILED", "requestId": "r", "startType": "WARM", "durationMs": 1.5, "peakMemoryBytes": 1_048_576,
            "allocatedMemoryMb": 128, "errorType": "FunctionError", "errorMessage": "ValueError: no",
            "stackTrace": ["main.py:3 in handler"],
        });
        assert_eq!(
            explain(&record),
            [
                "FAILED, warm, 1.50 ms, 1.0 of 128 MB (request r)",
                "FunctionError: ValueError: no",
                "  main.py:3 in handler"
            ]
        );
    }
}
