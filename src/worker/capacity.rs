//! How much this machine may run: the configuration, with what it leaves open taken from the machine.

use std::time::Duration;

use crate::config::{Config, PoolPolicy};
use crate::domain::function::Runtime;
use crate::domain::policy::evict::Eviction;
use crate::domain::policy::keep_alive::KeepAlive;
use crate::domain::pool::{Settings, Share};

/// Calls at once per processor, where the configuration does not say: most calls sleep, and what they cost beside is bounded by
/// the memory budget; calls that compute get no more sandboxes than keep the processors busy.
const CALLS_PER_CPU: usize = 128;
/// Where the machine does not tell its memory.
const MEMORY_MB_UNKNOWN: u64 = 1024;

/// What the machine has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Machine {
    pub cpus: usize,
    pub memory_mb: u64,
}

impl Machine {
    pub fn detect() -> Self {
        let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
        Self {
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            memory_mb: memory_mb(&meminfo).unwrap_or(MEMORY_MB_UNKNOWN),
        }
    }
}

/// From `/proc/meminfo` (proc_meminfo(5)): `MemTotal:  24692072 kB`.
fn memory_mb(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib / 1024)
}

/// One part in so many of everything is out of any single owner's reach.
const RESERVE_PART: usize = 8;
/// Where a part of the memory would hold no function, none is kept.
const RESERVE_MB_MIN: u64 = 128;

/// All but the reserve; all where there is too little to keep some.
pub(super) fn all_but_reserve(all: usize) -> usize {
    all - all / RESERVE_PART
}

/// What of all that one owner may have.
fn share(config: &Config, concurrency_max: usize, memory_budget_mb: u64) -> Share {
    let (limits, pool) = (&config.limits, &config.pool);
    let reserve_mb = memory_budget_mb / RESERVE_PART as u64;
    let reserve_mb = if reserve_mb < RESERVE_MB_MIN { 0 } else { reserve_mb };
    let waiting_too = all_but_reserve(concurrency_max.saturating_add(pool.waiters_max));
    let (concurrency, calls) = match limits.concurrency_per_owner {
        // Also never all the calls that the API has under way at once.
        0 => (all_but_reserve(concurrency_max), waiting_too.min(all_but_reserve(config.http.inflight_max)).max(1)),
        most => (most, most),
    };
    Share {
        concurrency,
        calls,
        sandboxes: all_but_reserve(pool.sandboxes_max.max(1)),
        memory_mb: match limits.memory_mb_per_owner {
            0 => memory_budget_mb - reserve_mb,
            most => most,
        },
    }
}

/// The bounds of the pool. Runtimes that this machine can't run are not kept ready.
pub fn settings(config: &Config, machine: Machine, supported: &[Runtime]) -> Settings {
    let pool = &config.pool;
    let or = |value: u64, default: u64| if value == 0 { default } else { value };
    let mut prewarmed = [0; Runtime::ALL.len()];
    for runtime in supported {
        prewarmed[*runtime as usize] = match runtime {
            Runtime::Python => pool.prewarmed_python,
            Runtime::Nodejs => pool.prewarmed_nodejs,
            Runtime::Provided | Runtime::Go | Runtime::Cpp => pool.prewarmed_native,
        };
    }
    let concurrency_max = or(pool.concurrency_max as u64, (machine.cpus * CALLS_PER_CPU) as u64) as usize;
    let memory_budget_mb = or(pool.memory_budget_mb, machine.memory_mb * 8 / 10);
    let keep_alive = Duration::from_secs(pool.keep_alive_s);
    Settings {
        sandboxes_max: pool.sandboxes_max.max(1),
        concurrency_max,
        cpus: machine.cpus.max(1),
        starting_max: pool.starting_max.max(1),
        per_version_max: pool.per_version_max.max(1),
        waiters_max: pool.waiters_max.max(1),
        queue_wait_max: Duration::from_millis(pool.queue_wait_ms),
        memory_budget_mb,
        share: share(config, concurrency_max, memory_budget_mb),
        prewarmed,
        freeze_after: Duration::from_millis(pool.freeze_after_ms),
        keep_alive: match pool.policy {
            PoolPolicy::Fixed => KeepAlive::Fixed(keep_alive),
            PoolPolicy::Adaptive => {
                let most = Duration::from_secs(pool.keep_alive_max_s);
                KeepAlive::Adaptive { standard: keep_alive, most }
            }
        },
        eviction: match pool.policy {
            PoolPolicy::Fixed => Eviction::LongestIdle,
            PoolPolicy::Adaptive => Eviction::GreedyDual,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_open_comes_from_the_machine() {
        let machine = Machine { cpus: 2, memory_mb: 1000 };
        let settings = settings(&Config::default(), machine, &[Runtime::Python]);
        assert_eq!((settings.concurrency_max, settings.memory_budget_mb), (256, 800));
        let share = Share { concurrency: 224, calls: 14_336, sandboxes: 875, memory_mb: 800 };
        assert_eq!(settings.share, share, "no memory is kept back where it would hold no function");
        assert_eq!(settings.prewarmed, [2, 0, 0, 0, 0]);
    }

    #[test]
    fn an_owner_s_share_is_what_is_configured_or_all_but_an_eighth() {
        let machine = Machine { cpus: 2, memory_mb: 20_000 };
        let mut config = Config::default();
        let of = |config: &Config| settings(config, machine, &[]).share;
        assert_eq!(of(&config).memory_mb, 14_000);
        (config.limits.concurrency_per_owner, config.limits.memory_mb_per_owner) = (10, 500);
        assert_eq!(of(&config), Share { concurrency: 10, calls: 10, sandboxes: 875, memory_mb: 500 });
        config.pool.concurrency_max = 3;
        config.limits.concurrency_per_owner = 0;
        assert_eq!(of(&config).concurrency, 3, "of three, none is kept back");
    }

    #[test]
    fn meminfo_is_read() {
        assert_eq!(memory_mb("MemTotal:       24692072 kB\nMemFree: 1 kB\n"), Some(24113));
        assert_eq!(memory_mb("nothing"), None);
    }
}
