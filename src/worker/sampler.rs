//! Looks at every sandbox now and then, for gauges: what all use together, and what each function's use.
//!
//! The cost is bounded: one look is a few reads of kept descriptors (`benches/usage.rs`), and a frozen sandbox, which can't use more
//! than it did, is looked at seldom.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::domain::ids::SandboxId;
use crate::ports::usage::Sample;

use super::handle::Handle;
use super::metrics::{FunctionMetrics, Metrics};
use super::sandboxes::Sandboxes;

/// A frozen sandbox is looked at once in so many rounds: its memory may be reclaimed, nothing else can change.
const FROZEN_EVERY: u64 = 30;
/// Sandboxes looked at before others have a turn on this thread: about 100 µs.
const TURN: usize = 50;

/// The last look at one sandbox.
struct Seen {
    sample: Sample,
    round: u64,
    frozen: bool,
}

/// What one function's sandboxes use together.
#[derive(Default)]
struct Sum {
    memory_bytes: u64,
    sandboxes: u64,
}

/// Remembers between rounds what a round needs of the one before.
#[derive(Default)]
pub(super) struct Sampler {
    round: u64,
    seen: HashMap<SandboxId, Seen>,
    /// By the address of their counters, of which functions beyond the bound share one.
    functions: HashMap<usize, (Arc<FunctionMetrics>, Sum)>,
}

impl Sandboxes {
    /// Looks at all every so often, for ever.
    pub async fn sample(self: Arc<Self>, every: Duration) {
        let mut sampler = Sampler::default();
        loop {
            tokio::time::sleep(every).await;
            // Looked at without the lock.
            let handles: Vec<Arc<Handle>> = self.lock().handles.values().cloned().collect();
            sampler.round(&handles, &self.metrics).await;
        }
    }
}

impl Sampler {
    /// One look at each that is due, and the gauges set.
    pub async fn round(&mut self, handles: &[Arc<Handle>], metrics: &Metrics) {
        self.round += 1;
        let mut total = Sample::default();
        for turn in handles.chunks(TURN) {
            for handle in turn {
                let Some((sample, cpu_us)) = self.look(handle) else { continue };
                total.memory_bytes += sample.memory_bytes;
                total.tasks += sample.tasks;
                // Since the last look: the counter goes on when a sandbox is gone.
                total.cpu_us += cpu_us;
                if let Some(special) = handle.special.get() {
                    self.add(&special.metrics, &sample);
                }
            }
            tokio::task::yield_now().await;
        }
        let alive: std::collections::HashSet<SandboxId> = handles.iter().map(|handle| handle.id).collect();
        self.seen.retain(|id, _| alive.contains(id));
        metrics.sampled(&total);
        self.functions.retain(|_, (function, sum)| {
            let Sum { memory_bytes, sandboxes } = std::mem::take(sum);
            function.sampled(memory_bytes, sandboxes);
            sandboxes > 0
        });
    }

    /// What it uses, and the processor time since the last look; `None` once it has ended.
    fn look(&mut self, handle: &Handle) -> Option<(Sample, u64)> {
        let frozen = handle.is_frozen();
        let before = self.seen.get(&handle.id);
        if let Some(seen) = before
            && frozen
            && seen.frozen
            && self.round - seen.round < FROZEN_EVERY
        {
            return Some((seen.sample, 0));
        }
        let sample = handle.sandbox.sample()?;
        let cpu_us = sample.cpu_us.saturating_sub(before.map_or(0, |seen| seen.sample.cpu_us));
        self.seen.insert(handle.id, Seen { sample, round: self.round, frozen });
        Some((sample, cpu_us))
    }

    fn add(&mut self, function: &Arc<FunctionMetrics>, sample: &Sample) {
        let at = Arc::as_ptr(function) as usize;
        let (_, sum) = self.functions.entry(at).or_insert_with(|| (function.clone(), Sum::default()));
        sum.memory_bytes += sample.memory_bytes;
        sum.sandboxes += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::fake::FakeSandbox;

    fn sum(registry: &prometheus::Registry, name: &str) -> f64 {
        let families = registry.gather();
        let family = families.iter().find(|family| family.name() == name);
        let value =
            |metric: &prometheus::proto::Metric| metric.get_gauge().get_value() + metric.get_counter().get_value();
        family.map_or(0.0, |family| family.get_metric().iter().map(value).sum())
    }

    #[tokio::test]
    async fn frozen_ones_are_looked_at_seldom_and_those_that_are_gone_count_no_more() {
        let registry = prometheus::Registry::new();
        let metrics = Metrics::new(&registry);
        let sandboxes: Vec<Arc<FakeSandbox>> = (0..120).map(|_| Arc::new(FakeSandbox::idle())).collect();
        let numbered = sandboxes.iter().zip(1..);
        let mut handles: Vec<Arc<Handle>> =
            numbered.map(|(sandbox, id)| Arc::new(Handle::new(SandboxId(id), sandbox.clone()))).collect();
        for handle in &handles[20..] {
            handle.freeze().unwrap();
        }
        let mut sampler = Sampler::default();
        for _ in 0..FROZEN_EVERY {
            sampler.round(&handles, &metrics).await;
        }
        assert_eq!(sandboxes[0].looks(), FROZEN_EVERY, "one that is not frozen");
        assert_eq!(sandboxes[119].looks(), 1, "a frozen one");
        let each = FakeSandbox::SAMPLE;
        assert_eq!(sum(&registry, "faasd_worker_sandbox_memory_bytes"), 120.0 * each.memory_bytes as f64);
        assert_eq!(sum(&registry, "faasd_worker_sandbox_tasks"), 120.0 * each.tasks as f64);
        let cpu = sum(&registry, "faasd_worker_sandbox_cpu_seconds_total");
        assert!((cpu - 120.0 * each.cpu_us as f64 / 1e6).abs() < 1e-9, "each microsecond counts once: {cpu}");

        handles.truncate(1);
        sampler.round(&handles, &metrics).await;
        assert_eq!(sum(&registry, "faasd_worker_sandbox_memory_bytes"), each.memory_bytes as f64);
        assert_eq!(sampler.seen.len(), 1, "nothing is kept of what is gone");
        assert_eq!(sum(&registry, "faasd_worker_sandbox_cpu_seconds_total"), cpu, "a counter never falls");
    }
}
