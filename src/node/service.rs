//! What systemd is told of this node, where it asked (`Type=notify`, `WatchdogSec`): that it serves, lives, and stops. Elsewhere nothing.

use std::time::Duration;

use sd_notify::NotifyState;

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "systemd can't be told of the node's state");
    }
}

/// It serves.
pub(super) fn ready(address: std::net::SocketAddr) {
    tell(&[NotifyState::Ready, NotifyState::Status(&format!("serves at {address}"))]);
}

/// It takes no new work, and ends when what runs is over.
pub(super) fn stopping() {
    tell(&[NotifyState::Stopping, NotifyState::Status("stopping: running calls may finish")]);
}

/// Says that the node lives, twice in the time that systemd waits for it, for as long as its tasks and its threads get on. For ever;
/// without a watchdog it says nothing.
pub(super) async fn watch() {
    let Some(within) = sd_notify::watchdog_enabled() else { return std::future::pending().await };
    let every = (within / 2).max(Duration::from_millis(10));
    loop {
        tokio::time::sleep(every).await;
        // A thread pool that is stuck is as good as a dead node.
        match tokio::time::timeout(every, tokio::task::spawn_blocking(|| ())).await {
            Ok(Ok(())) => tell(&[NotifyState::Watchdog]),
            Ok(Err(_)) | Err(_) => {
                tracing::error!("the node's threads don't get on: systemd is not told that it lives")
            }
        }
    }
}
