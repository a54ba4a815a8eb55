//! A worker's idle sandboxes, offered as claims and withdrawn when they are not idle any more. Changes within a moment go together, and
//! now and then everything is told anew, since nobody says when a claim was taken and not used.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::ports::Unavailable;
use crate::ports::claims::Claims;

use super::ledger::Change;
use super::server::Server;

/// Changes within this go together: a sandbox is taken and returned many times a second.
const DEBOUNCE: Duration = Duration::from_millis(3);
const ANEW_EVERY: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_secs(1);

/// For ever.
pub async fn offer(server: Arc<Server>, claims: Arc<dyn Claims>) {
    let mut anew_at = Instant::now() + ANEW_EVERY;
    let mut failing = false;
    loop {
        let free_in = server.next_free().unwrap_or(ANEW_EVERY);
        tokio::select! {
            () = server.host.idle_changed() => {}
            () = sleep(free_in.max(DEBOUNCE)) => {}
            () = tokio::time::sleep_until(anew_at) => {}
        }
        sleep(DEBOUNCE).await;
        let anew = Instant::now() >= anew_at;
        if anew {
            anew_at = Instant::now() + ANEW_EVERY;
        }
        match tell(&server, claims.as_ref(), anew).await {
            Ok(()) => failing = false,
            Err(error) => {
                if !std::mem::replace(&mut failing, true) {
                    tracing::warn!(%error, "idle sandboxes can't be offered: controllers ask by themselves");
                }
                // What was told of this is not known.
                anew_at = Instant::now() + PAUSE;
                sleep(PAUSE).await;
            }
        }
    }
}

async fn tell(server: &Server, claims: &dyn Claims, anew: bool) -> Result<(), Unavailable> {
    if anew {
        let versions = server.ledger().start_anew();
        for version in versions {
            claims.withdraw(version, server.worker, u32::MAX).await?;
        }
    }
    let changes = server.changes();
    for change in changes {
        match change {
            Change::Offer(version, count) => claims.offer(version, server.worker, count).await?,
            Change::Withdraw(version, count) => drop(claims.withdraw(version, server.worker, count).await?),
        }
    }
    Ok(())
}
