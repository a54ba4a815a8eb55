//! What Redis itself spends: its one thread's processor time, by its own account.

use std::time::Duration;

use super::support::redis::RedisServer;

/// Of the whole process since its start.
pub fn processor(server: &RedisServer) -> Duration {
    let info = server.ask(&["INFO", "cpu"]);
    let of = |name: &str| {
        info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')?.trim().parse::<f64>().ok())
    };
    let seconds = ["used_cpu_sys", "used_cpu_user"].into_iter().filter_map(of).sum();
    Duration::from_secs_f64(seconds)
}

/// Bytes that it uses for what it keeps and for its clients.
pub fn memory(server: &RedisServer) -> u64 {
    let info = server.ask(&["INFO", "memory"]);
    info.lines().find_map(|line| line.strip_prefix("used_memory:")?.trim().parse().ok()).unwrap_or(0)
}
