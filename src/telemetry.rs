//! Logs: `tracing` to stderr, as text or as one JSON object a line, and a panic hook that logs.
//!
//! Metrics are elsewhere: each room has its own handles, and a node owns the registry.

use std::io::IsTerminal;
use std::sync::Once;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use crate::config::Log;

/// Reads a level (`info`) or a filter (`info,faasd::worker=debug`).
///
/// # Errors
/// One sentence. A lone word that is no level is refused, though `tracing` would take it for a target and then log nothing.
pub fn filter(level: &str) -> Result<EnvFilter, String> {
    for directive in level.split(',').filter(|directive| !directive.contains(['=', '['])) {
        if directive.trim().is_empty() || directive.trim().parse::<LevelFilter>().is_err() {
            return Err(format!("`{directive}` is none of error, warn, info, debug, trace, off"));
        }
    }
    EnvFilter::builder().parse(level).map_err(|error| error.to_string())
}

/// Sends logs to stderr and panics to the logs. Only the first call in a process does anything.
pub fn init(log: &Log) {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let filter = filter(&log.level).unwrap_or_else(|_| EnvFilter::new("info"));
        let base = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(std::io::stderr)
            .with_ansi(std::io::stderr().is_terminal());
        // An error means that a test has set a subscriber of its own, which may stay.
        let _ = if log.json { base.json().flatten_event(true).try_init() } else { base.try_init() };
        log_panics();
    });
}

/// A panic is a defect that a person must look at: it is logged with its place, and then whatever was there before has its turn
/// only if nobody listens to the logs.
fn log_panics() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !tracing::event_enabled!(tracing::Level::ERROR) {
            return before(panic);
        }
        let payload = panic.payload();
        let words = payload.downcast_ref::<&str>().copied();
        let error = words.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message");
        let location = panic.location().map(ToString::to_string).unwrap_or_default();
        let thread = std::thread::current();
        tracing::error!(error, location, thread = thread.name().unwrap_or("unnamed"), "a task panicked");
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn initialising_twice_is_harmless() {
        let log = Log { level: "warn".to_owned(), json: true };
        init(&log);
        init(&log);
    }

    #[test]
    fn levels_and_filters_are_told_from_nonsense() {
        for good in ["info", "debug", "warn,faasd::worker=debug", "off"] {
            assert!(filter(good).is_ok(), "{good}");
        }
        for bad in ["info,=", "faasd=loud", "verbose", ""] {
            assert!(filter(bad).is_err(), "{bad}");
        }
    }
}
