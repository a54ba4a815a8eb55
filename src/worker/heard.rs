//! Who hears what asynchronous invocations print: this process's own listeners, and those of others.

use std::sync::{Arc, PoisonError, RwLock, Weak};

use crate::domain::ids::InvocationId;
use crate::ports::executor::LogSinks;
use crate::ports::sandbox::{LogSink, Stream};

#[derive(Default)]
pub(super) struct Listeners(RwLock<Vec<Weak<dyn LogSinks>>>);

impl Listeners {
    pub fn add(&self, sinks: Weak<dyn LogSinks>) {
        // Added in one step.
        self.0.write().unwrap_or_else(PoisonError::into_inner).push(sinks);
    }

    pub fn sink_for(&self, id: InvocationId, attempt: u32) -> Option<Arc<dyn LogSink>> {
        let all = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let mut sinks: Vec<_> = all.iter().filter_map(|sinks| sinks.upgrade()?.sink_for(id, attempt)).collect();
        match sinks.len() {
            0 | 1 => sinks.pop(),
            _ => Some(Arc::new(All(sinks))),
        }
    }
}

struct All(Vec<Arc<dyn LogSink>>);

impl LogSink for All {
    fn line(&self, stream: Stream, line: &str) {
        self.0.iter().for_each(|sink| sink.line(stream, line));
    }

    fn is_heard(&self) -> bool {
        self.0.iter().any(|sink| sink.is_heard())
    }

    fn waits(&self) {
        self.0.iter().for_each(|sink| sink.waits());
    }

    fn begins(&self) {
        self.0.iter().for_each(|sink| sink.begins());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[derive(Default)]
    struct Heard(Mutex<Vec<String>>);

    impl LogSink for Heard {
        fn line(&self, _: Stream, line: &str) {
            self.0.lock().unwrap().push(line.to_owned());
        }
    }

    struct Sinks(Arc<Heard>);

    impl LogSinks for Sinks {
        fn sink_for(&self, _: InvocationId, _: u32) -> Option<Arc<dyn LogSink>> {
            Some(self.0.clone())
        }
    }

    #[test]
    fn all_who_are_still_there_hear_it() {
        let id = InvocationId(uuid::Uuid::nil());
        let listeners = Listeners::default();
        assert!(listeners.sink_for(id, 1).is_none());
        let all: Vec<Arc<Sinks>> = (0..3).map(|_| Arc::new(Sinks(Arc::default()))).collect();
        for sinks in &all {
            let sinks: Arc<dyn LogSinks> = sinks.clone();
            listeners.add(Arc::downgrade(&sinks));
        }
        let heard: Vec<_> = all.iter().map(|sinks| sinks.0.clone()).collect();
        listeners.sink_for(id, 1).unwrap().line(Stream::Stdout, "a");
        let mut all = all;
        all.truncate(1);
        listeners.sink_for(id, 1).unwrap().line(Stream::Stdout, "b");
        let lines: Vec<_> = heard.iter().map(|heard| heard.0.lock().unwrap().concat()).collect();
        assert_eq!(lines, ["ab", "a", "a"]);
    }
}
