//! What is known and shown of the launcher's zygotes, and which sandboxes came of one.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry};
use tokio::sync::watch;

/// Cheap to clone.
#[derive(Clone, Debug)]
pub struct Zygotes {
    ready: IntGauge,
    ends: IntCounter,
    starts: IntCounterVec,
    /// The programs whose zygote serves.
    serving: Arc<Mutex<BTreeSet<String>>>,
    changes: watch::Sender<Option<String>>,
}

impl Default for Zygotes {
    #[allow(clippy::expect_used, reason = "all names are valid")]
    fn default() -> Self {
        let starts = Opts::new("faasd_sandbox_starts_total", "Sandboxes whose runtime has begun.");
        Self {
            ready: IntGauge::new("faasd_sandbox_zygotes", "Zygotes ready to be forked.").expect("a valid name"),
            ends: IntCounter::new("faasd_sandbox_zygote_ends_total", "Zygotes that ended, or could not begin.")
                .expect("a valid name"),
            starts: IntCounterVec::new(starts, &["way"]).expect("a valid name"),
            serving: Arc::default(),
            changes: watch::Sender::default(),
        }
    }
}

impl Zygotes {
    pub fn register(&self, registry: &Registry) {
        let all = [
            registry.register(Box::new(self.ready.clone())),
            registry.register(Box::new(self.ends.clone())),
            registry.register(Box::new(self.starts.clone())),
        ];
        for error in all.into_iter().filter_map(Result::err) {
            tracing::warn!(%error, "metric not registered");
        }
    }

    /// By the launcher's word.
    pub fn tell(&self, program: String, lives: bool, cause: String) {
        {
            let mut serving = self.serving.lock().unwrap_or_else(PoisonError::into_inner);
            if lives {
                serving.insert(program.clone());
            } else {
                serving.remove(&program);
            }
            self.ready.set(serving.len() as i64);
        }
        if !lives {
            self.ends.inc();
            tracing::warn!(
                program,
                cause,
                "zygote ended: until the next one is ready, sandboxes are started by their program"
            );
        }
        self.changes.send_replace((!lives).then_some(cause));
    }

    /// All are gone, with their launcher.
    pub fn forget(&self) {
        self.serving.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.ready.set(0);
    }

    pub fn began(&self, forked: bool) {
        self.starts.with_label_values(&[if forked { "forked" } else { "executed" }]).inc();
    }

    /// Zygotes ready to be forked.
    pub fn ready(&self) -> usize {
        usize::try_from(self.ready.get()).unwrap_or(0)
    }

    /// Sandboxes so far whose runtime was forked, and executed.
    pub fn starts(&self) -> (u64, u64) {
        let of = |way: &str| self.starts.with_label_values(&[way]).get();
        (of("forked"), of("executed"))
    }

    /// Waits until one is ready, or the launcher tells why none is.
    pub async fn settled(&self) -> Result<(), String> {
        let mut changes = self.changes.subscribe();
        loop {
            if self.ready() > 0 {
                return Ok(());
            }
            if let Some(cause) = changes.borrow_and_update().clone() {
                return Err(cause);
            }
            if changes.changed().await.is_err() {
                return Err("the launcher is gone".to_owned());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_the_launcher_tells_is_shown() {
        let zygotes = Zygotes::default();
        zygotes.tell("python3".to_owned(), true, String::new());
        assert_eq!((zygotes.ready(), zygotes.settled().await), (1, Ok(())));
        zygotes.tell("python3".to_owned(), false, "it ended".to_owned());
        assert_eq!((zygotes.ready(), zygotes.settled().await), (0, Err("it ended".to_owned())));
        assert_eq!(zygotes.ends.get(), 1);
        zygotes.began(true);
        assert_eq!(zygotes.starts(), (1, 0));
    }
}
